//! The identity in use, kept up to date with the disk.
//!
//! A set that cannot be read just now (half replaced by the operator's tooling, a file system away) does not replace
//! one that could: the last good set is used on, and the trouble is logged.

use std::path::Path;
use std::sync::Arc;

use picket_proto::v1;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config;
use crate::identity::{
    Identity, IdentityError, RENEWAL_TIMEOUT, RenewError, RenewalRequest, Source, date, random_unit,
    renewal_due, retry_after, unix_now,
};

pub(super) struct Credentials {
    source: Source,
    current: Option<Arc<Identity>>,
    /// The fingerprint of the identity that the last connection was made with.
    used: Option<[u8; 32]>,
    /// This certificate's chance, 0..1: when in its window it is renewed.
    jitter: f64,
    /// A renewal under way on this stream, and since when.
    asked: Option<(RenewalRequest, Instant)>,
    /// After a refusal: no renewal before this.
    not_before: Option<Instant>,
    /// The last complaint in the log.
    told: Option<String>,
}

impl Credentials {
    pub fn new(config: &config::Uplink, state_dir: &Path) -> Result<Self, IdentityError> {
        let source = Source::new(
            state_dir,
            config.certificate.as_deref(),
            config.key.as_deref(),
            config.authorities.as_deref(),
        )?;
        Ok(Self {
            source,
            current: None,
            used: None,
            jitter: random_unit(),
            asked: None,
            not_before: None,
            told: None,
        })
    }

    /// The identity to connect with: what is on disk now, else the last that was good.
    pub async fn refresh(&mut self) -> Result<Arc<Identity>, IdentityError> {
        // A new connection knows nothing of what was asked on the old one.
        self.asked = None;
        let (identity, _) = self.reload().await?;
        self.used = Some(identity.fingerprint);
        Ok(identity)
    }

    /// There is another identity now than the last connection was made with.
    pub fn has_newer(&self) -> bool {
        self.current.as_ref().map(|current| current.fingerprint) != self.used
    }

    /// Reads the disk again; whether another identity is in use now.
    pub async fn changed(&mut self) -> bool {
        self.reload().await.is_ok_and(|(_, changed)| changed)
    }

    pub fn not_after(&self) -> Option<i64> {
        self.current.as_ref().map(|identity| identity.info.not_after)
    }

    async fn load(&self) -> Result<Identity, IdentityError> {
        let source = self.source.clone();
        match tokio::task::spawn_blocking(move || source.load()).await {
            Ok(loaded) => loaded,
            Err(stopped) => Err(IdentityError::Read {
                path: std::path::PathBuf::from("identity"),
                source: std::io::Error::other(stopped.to_string()),
            }),
        }
    }

    async fn reload(&mut self) -> Result<(Arc<Identity>, bool), IdentityError> {
        match (self.load().await, &self.current) {
            (Ok(identity), Some(current)) if current.fingerprint == identity.fingerprint => {
                self.told = None;
                Ok((Arc::clone(current), false))
            }
            (Ok(identity), _) => {
                let identity = Arc::new(identity);
                self.told = None;
                self.jitter = random_unit();
                self.current = Some(Arc::clone(&identity));
                Ok((identity, true))
            }
            (Err(error), Some(current)) => {
                let text = error.to_string();
                if self.told.as_ref() != Some(&text) {
                    warn!(error = %text, "the identity on disk cannot be used; the last good one is kept");
                    self.told = Some(text);
                }
                Ok((Arc::clone(current), false))
            }
            (Err(error), None) => Err(error),
        }
    }

    /// The certificate request to send, if it is time for one.
    pub fn renewal(&mut self) -> Result<Option<Vec<u8>>, RenewError> {
        let now = unix_now();
        let Some(current) = self.current.as_ref().filter(|identity| identity.renewable) else {
            return Ok(None);
        };
        if let Some((_, since)) = &self.asked {
            if since.elapsed() < RENEWAL_TIMEOUT {
                return Ok(None);
            }
            self.asked = None;
            self.wait();
            return Err(RenewError::Timeout);
        }
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(None);
        }
        if !renewal_due(current.info.not_before, current.info.not_after, now, self.jitter).is_zero() {
            return Ok(None);
        }
        let (request, csr) = RenewalRequest::new().inspect_err(|_| self.wait())?;
        self.asked = Some((request, Instant::now()));
        Ok(Some(csr))
    }

    /// Takes the aggregator's answer. `None`: nothing was asked, the answer is ignored.
    pub async fn renewed(&mut self, answer: v1::RenewResponse) -> Option<Result<(), RenewError>> {
        let (request, _) = self.asked.take()?;
        let current = self.current.clone()?;
        let Source::Enrolled(store) = self.source.clone() else { return None };
        let accepted = tokio::task::spawn_blocking(move || request.accept(&store, &current, answer)).await;
        let accepted = accepted.unwrap_or_else(|stopped| Err(RenewError::Answer(stopped.to_string())));
        Some(match accepted {
            Ok(identity) => {
                info!(until = %date(identity.info.not_after), "certificate renewed");
                self.not_before = None;
                self.jitter = random_unit();
                self.current = Some(Arc::new(identity));
                Ok(())
            }
            Err(error) => {
                self.wait();
                Err(error)
            }
        })
    }

    fn wait(&mut self) {
        let left = self.current.as_ref().map_or(0, |identity| identity.info.not_after);
        self.not_before = Some(Instant::now() + retry_after(left, unix_now(), random_unit()));
    }
}
