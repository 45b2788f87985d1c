//! Room for connections: pending ones in a ring where the oldest gives way, trusted ones up to a fixed number and so
//! many a peer.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::identity::secret::sha256;

/// The bounds of a gate.
#[derive(Debug, Clone, Copy)]
pub struct GateOptions {
    /// Connections that have not shown yet who they are.
    pub pending: usize,
    /// Connections that have.
    pub trusted: usize,
    /// Connections with one and the same client certificate.
    pub per_certificate: usize,
}

/// Counts connections and turns away the ones too many.
pub struct Gate {
    options: GateOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    pending: BTreeMap<u64, CancellationToken>,
    trusted: usize,
    by_certificate: HashMap<[u8; 32], usize>,
}

/// One connection's place; gives it back when dropped.
pub struct Entry {
    gate: Arc<Gate>,
    number: u64,
    evicted: CancellationToken,
    trusted: AtomicBool,
    certificate: OnceLock<[u8; 32]>,
}

impl Gate {
    pub fn new(options: GateOptions) -> Arc<Self> {
        Arc::new(Self { options, state: Mutex::new(State::default()) })
    }

    /// A place for a new connection; the oldest pending one gives way where there are too many.
    pub fn enter(self: &Arc<Self>) -> Arc<Entry> {
        let evicted = CancellationToken::new();
        let mut state = self.state();
        if state.pending.len() >= self.options.pending
            && let Some((_, oldest)) = state.pending.pop_first()
        {
            oldest.cancel();
        }
        let number = state.next;
        state.next += 1;
        state.pending.insert(number, evicted.clone());
        drop(state);
        Arc::new(Entry {
            gate: Arc::clone(self),
            number,
            evicted,
            trusted: AtomicBool::new(false),
            certificate: OnceLock::new(),
        })
    }

    /// Pending and trusted connections of now.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.pending.len(), state.trusted)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Counts the connection as trusted. `false` where there is no room: the connection has to end.
    pub fn trust(&self, certificate: Option<&CertificateDer<'_>>) -> bool {
        if self.is_trusted() {
            return true;
        }
        let digest = certificate.map(|der| sha256(der));
        let mut state = self.gate.state();
        if self.is_trusted() {
            return true;
        }
        if state.trusted >= self.gate.options.trusted {
            return false;
        }
        if let Some(digest) = digest {
            let count = state.by_certificate.entry(digest).or_default();
            if *count >= self.gate.options.per_certificate {
                return false;
            }
            *count += 1;
            let _ = self.certificate.set(digest);
        }
        state.pending.remove(&self.number);
        state.trusted += 1;
        self.trusted.store(true, Ordering::Release);
        true
    }

    pub fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Acquire)
    }

    /// Resolves when the connection has to give way.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        if !self.is_trusted() {
            state.pending.remove(&self.number);
            return;
        }
        state.trusted -= 1;
        if let Some(digest) = self.certificate.get()
            && let Some(count) = state.by_certificate.get_mut(digest)
        {
            *count -= 1;
            if *count == 0 {
                state.by_certificate.remove(digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Arc<Gate> {
        Gate::new(GateOptions { pending: 2, trusted: 3, per_certificate: 2 })
    }

    #[test]
    fn the_oldest_pending_gives_way() {
        let gate = gate();
        let (a, b) = (gate.enter(), gate.enter());
        assert!(!a.evicted.is_cancelled());
        let c = gate.enter();
        assert!(a.evicted.is_cancelled() && !b.evicted.is_cancelled() && !c.evicted.is_cancelled());
        assert!(b.trust(None));
        let _d = gate.enter();
        assert!(!b.evicted.is_cancelled(), "a trusted one never gives way");
        assert!(!c.evicted.is_cancelled(), "there was room again");
    }

    #[test]
    fn places_come_back() {
        let gate = gate();
        let certificate = CertificateDer::from(vec![1]);
        let (a, b, c) = (gate.enter(), gate.enter(), gate.enter());
        assert!(a.trust(Some(&certificate)) && b.trust(Some(&certificate)));
        assert!(!c.trust(Some(&certificate)), "two a certificate");
        assert!(a.trust(Some(&certificate)), "twice is once");
        drop(a);
        assert!(c.trust(Some(&certificate)));
        drop((b, c));
        assert_eq!(gate.counts(), (0, 0));
        assert!(gate.state().by_certificate.is_empty());
    }

    #[test]
    fn trusted_places_are_bounded() {
        let gate = gate();
        let all: Vec<_> = (0..3).map(|_| gate.enter()).inspect(|e| assert!(e.trust(None))).collect();
        assert!(!gate.enter().trust(None));
        drop(all);
        assert!(gate.enter().trust(None));
    }
}
