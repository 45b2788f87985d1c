//! Keys of TLS session tickets, kept over restarts: the storm of reconnects comes exactly when the aggregator was
//! restarted, and a resumed handshake costs no signature.
//!
//! A ticket is sealed with ChaCha20-Poly1305 under a key of the ring below, bound to the authorities that the client
//! was verified against. Keys live in `STATE/ticket-keys` (0600, beside the CA's key, which is worth more), are
//! replaced each 12 hours, and forgotten after 24. TLS 1.3 still makes a new key exchange on every resumption.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;

use crate::clock::Clock;
use crate::identity::secret::{self, NoRandomness};

const ROTATE_MS: i64 = 12 * 3600 * 1000;
const LIFE_MS: i64 = 24 * 3600 * 1000;
/// Name of the key, time of its making, the key.
const RECORD: usize = 8 + 8 + 32;
const NAME: usize = 8;
/// The longest ticket that is opened: a session with a chain of certificates.
const MAX_TICKET: usize = 32 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    #[error("cannot {what} the ticket keys {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// The ring of keys, newest first.
pub struct TicketKeys {
    path: Option<PathBuf>,
    clock: Clock,
    ring: RwLock<Vec<Key>>,
}

struct Key {
    name: [u8; NAME],
    made_ms: i64,
    secret: [u8; 32],
    sealing: LessSafeKey,
}

impl TicketKeys {
    /// The keys of `path` that are still good, and a new one where the newest is old. `None`: kept in memory alone.
    pub fn open(path: Option<&Path>, clock: Clock) -> Result<Arc<Self>, TicketError> {
        let bytes = match path.map(fs::read) {
            Some(Ok(bytes)) => bytes,
            Some(Err(e)) if e.kind() != io::ErrorKind::NotFound => {
                let path = path.unwrap_or(Path::new("")).to_owned();
                return Err(TicketError::File { what: "read", path, source: e });
            }
            _ => Vec::new(),
        };
        // A damaged file costs full handshakes, nothing else.
        let ring = bytes.chunks_exact(RECORD).filter_map(Key::parse).collect();
        let keys = Arc::new(Self { path: path.map(Path::to_owned), clock, ring: RwLock::new(ring) });
        keys.rotate()?;
        Ok(keys)
    }

    /// Makes a new key where the newest is 12 hours old, forgets those of more than 24, and stores the rest.
    pub fn rotate(&self) -> Result<(), TicketError> {
        let now = self.clock.now_ms();
        let text = {
            let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
            // A key from the future is a clock that went back: it would never end.
            ring.retain(|key| (0..LIFE_MS).contains(&(now - key.made_ms)));
            if ring.first().is_some_and(|key| now - key.made_ms < ROTATE_MS) {
                return Ok(());
            }
            ring.insert(0, Key::new(secret::random()?, now, secret::random()?).ok_or(NoRandomness)?);
            ring.iter().flat_map(Key::to_bytes).collect::<Vec<u8>>()
        };
        let Some(path) = &self.path else { return Ok(()) };
        store(path, &text).map_err(|source| TicketError::File { what: "write", path: path.clone(), source })
    }

    fn seal(&self, context: &[u8; 32], plain: &[u8]) -> Option<Vec<u8>> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let key = ring.first()?;
        let nonce: [u8; NONCE_LEN] = secret::random().ok()?;
        let mut sealed = Vec::with_capacity(NAME + NONCE_LEN + plain.len() + CHACHA20_POLY1305.tag_len());
        let mut body = plain.to_vec();
        key.sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut body)
            .ok()?;
        sealed.extend_from_slice(&key.name);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Some(sealed)
    }

    fn open_ticket(&self, context: &[u8; 32], ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > MAX_TICKET {
            return None;
        }
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let key = ring.iter().find(|key| key.name == name)?;
        if self.clock.now_ms() - key.made_ms > LIFE_MS {
            return None;
        }
        let mut body = body.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = key.sealing.open_in_place(nonce, Aad::from(context), &mut body).ok()?.len();
        body.truncate(plain);
        Some(body)
    }
}

impl Key {
    fn new(name: [u8; NAME], made_ms: i64, secret: [u8; 32]) -> Option<Self> {
        let sealing = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &secret).ok()?);
        Some(Self { name, made_ms, secret, sealing })
    }

    fn parse(record: &[u8]) -> Option<Self> {
        let (name, rest) = record.split_first_chunk::<NAME>()?;
        let (made, secret) = rest.split_first_chunk::<8>()?;
        Self::new(*name, i64::from_be_bytes(*made), secret.try_into().ok()?)
    }

    fn to_bytes(&self) -> Vec<u8> {
        [&self.name[..], &self.made_ms.to_be_bytes(), &self.secret].concat()
    }
}

/// The keys as one port's TLS sees them.
pub(super) struct Tickets {
    keys: Arc<TicketKeys>,
    /// What the tickets are bound to: a digest of the client authorities.
    context: [u8; 32],
}

impl Tickets {
    pub(super) fn new(keys: Arc<TicketKeys>, context: [u8; 32]) -> Self {
        Self { keys, context }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        (ROTATE_MS / 1000) as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.seal(&self.context, plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.keys.open_ticket(&self.context, cipher)
    }
}

fn store(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tickets_outlive_a_restart_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ticket-keys");
        let clock = Clock::manual(1_000_000_000_000);
        let keys = TicketKeys::open(Some(&path), clock.clone()).unwrap();
        let ticket = keys.seal(&[1; 32], b"session").unwrap();
        drop(keys);
        let keys = TicketKeys::open(Some(&path), clock.clone()).unwrap();
        assert_eq!(keys.open_ticket(&[1; 32], &ticket).unwrap(), b"session");
        assert_eq!(keys.open_ticket(&[2; 32], &ticket), None, "other authorities");
        clock.advance(Duration::from_secs(13 * 3600));
        keys.rotate().unwrap();
        assert_eq!(keys.open_ticket(&[1; 32], &ticket).unwrap(), b"session", "the key before");
        clock.advance(Duration::from_secs(13 * 3600));
        keys.rotate().unwrap();
        assert_eq!(keys.open_ticket(&[1; 32], &ticket), None, "too old");
    }

    #[test]
    fn foreign_bytes_are_no_tickets() {
        let keys = TicketKeys::open(None, Clock::manual(1)).unwrap();
        let ticket = keys.seal(&[0; 32], b"session").unwrap();
        for len in 0..ticket.len() {
            assert_eq!(keys.open_ticket(&[0; 32], &ticket[..len]), None);
        }
        for i in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[i] ^= 1;
            assert_eq!(keys.open_ticket(&[0; 32], &bad), None);
        }
    }

    #[test]
    fn a_damaged_file_is_only_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ticket-keys");
        fs::write(&path, [7; 1000]).unwrap();
        let keys = TicketKeys::open(Some(&path), Clock::manual(5_000)).unwrap();
        assert!(keys.seal(&[0; 32], b"x").is_some());
    }
}
