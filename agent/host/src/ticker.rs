//! Stops guests for a look at their time.
//!
//! A guest looks at its engine's epoch at each turn of a loop. A thread advances it every [`TICK`] while a guest runs, and
//! sleeps while none does: a hundred ticks a second for nothing would cost an idle node more than its plugins.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::Engine;

/// How often a running guest is stopped for a look at its time.
const TICK: Duration = Duration::from_millis(10);

/// The thread, which ends with this.
#[derive(Debug)]
pub(crate) struct Ticker {
    state: Arc<State>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct State {
    /// Guests that run at this moment.
    inside: AtomicUsize,
    over: AtomicBool,
}

impl Ticker {
    /// It is up when this returns: later it might be refused what a thread does at its start.
    pub(crate) fn start(engine: &Engine) -> io::Result<Arc<Self>> {
        let (engine, state) = (engine.weak(), Arc::<State>::default());
        let seen = state.clone();
        let (up, is_up) = std::sync::mpsc::sync_channel(1);
        let builder = std::thread::Builder::new().name("picket-tick".to_owned()).stack_size(64 << 10);
        let started = builder.spawn(move || {
            let _ = up.send(());
            while !seen.over.load(Ordering::SeqCst) {
                if seen.inside.load(Ordering::SeqCst) == 0 {
                    // Returns at once where a guest was entered since the look.
                    std::thread::park();
                    continue;
                }
                std::thread::sleep(TICK);
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        })?;
        is_up.recv().map_err(io::Error::other)?;
        Ok(Arc::new(Self { state, thread: started.thread().clone() }))
    }

    /// A guest runs until what is returned is dropped.
    pub(crate) fn inside(&self) -> Inside<'_> {
        if self.state.inside.fetch_add(1, Ordering::SeqCst) == 0 {
            // No system call where the thread is awake.
            self.thread.unpark();
        }
        Inside(&self.state.inside)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

pub(crate) struct Inside<'a>(&'a AtomicUsize);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(all(test, feature = "compile"))]
mod tests {
    use wasmtime::component::{Component, Linker};
    use wasmtime::{Store, UpdateDeadline};

    use super::*;

    /// A component that loops for ever.
    const LOOP: &str = r#"(component
        (core module $m (func (export "run") (loop $l (br $l))))
        (core instance $i (instantiate $m))
        (func (export "run") (canon lift (core func $i "run"))))"#;

    #[test]
    fn it_ticks_while_a_guest_runs_and_after_a_rest_again() {
        let engine = Engine::new(&crate::engine::config()).unwrap();
        let ticker = Ticker::start(&engine).unwrap();
        let component = Component::new(&engine, LOOP).unwrap();
        for _ in 0..3 {
            let mut store = Store::new(&engine, 0);
            store.epoch_deadline_callback(|mut store| {
                *store.data_mut() += 1;
                if *store.data() > 3 {
                    Err(wasmtime::Error::msg("enough"))
                } else {
                    Ok(UpdateDeadline::Continue(1))
                }
            });
            let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
            let run = instance.get_typed_func::<(), ()>(&mut store, "run").unwrap();
            let inside = ticker.inside();
            // Comes back by the ticks alone.
            assert!(run.call(&mut store, ()).is_err());
            drop(inside);
            assert_eq!(*store.data(), 4);
        }
    }
}
