//! Which call each thread is in, and since when. A thread that hangs in the driver can't tell; another one can.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A slot for each thread that calls the library.
#[derive(Default)]
pub struct Watch {
    pub reader: Slot,
    pub events: Slot,
}

/// One thread's current call.
#[derive(Default)]
pub struct Slot(Mutex<Option<Call>>);

/// A call that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The library's function.
    pub name: &'static str,
    /// The GPU's number.
    pub device: Option<u32>,
    since: Instant,
    /// What it may take by itself: waiting for an event takes long.
    own: Duration,
}

impl Call {
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

/// The call ends when it is dropped.
pub struct Entered<'a>(&'a Slot);

impl Slot {
    pub fn enter(&self, name: &'static str, device: Option<u32>, own: Duration) -> Entered<'_> {
        let call = Call { name, device, since: Instant::now(), own };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(call);
        Entered(self)
    }

    fn overdue(&self, limit: Duration) -> Option<Call> {
        let call = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        call.filter(|call| call.elapsed() > limit + call.own)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Watch {
    /// A call that has taken longer than it may.
    pub fn overdue(&self, limit: Duration) -> Option<Call> {
        self.reader.overdue(limit).or_else(|| self.events.overdue(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_overdue_after_its_own_time_and_the_limit() {
        let watch = Watch::default();
        assert!(watch.overdue(Duration::ZERO).is_none());
        let entered = watch.reader.enter("a", Some(3), Duration::ZERO);
        let waiting = watch.events.enter("b", None, Duration::from_secs(3600));
        std::thread::sleep(Duration::from_millis(2));
        let found = watch.overdue(Duration::from_millis(1)).unwrap();
        assert_eq!((found.name, found.device), ("a", Some(3)));
        assert!(watch.overdue(Duration::from_secs(60)).is_none());
        drop(entered);
        assert!(watch.overdue(Duration::from_millis(1)).is_none());
        drop(waiting);
    }
}
