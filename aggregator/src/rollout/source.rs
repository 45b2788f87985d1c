//! Where plugins come from, and whether they are trusted here: registries and the aggregator's own policy.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use picket_artifact::{Digest, Evidence, Policy, Subject, Verdict};
use picket_proto::model::PluginId;
use picket_registry::{Access, Reference};

use super::{PULL_WITHIN, Registry, Rollout, RolloutError, Rollouts, blocking, telemetry};
use crate::rollout::machine::State;
use crate::store::lock;

/// What was pulled and is trusted.
pub(super) struct Found {
    /// With the digest of the artifact.
    pub resolved: String,
    pub digest: Digest,
    pub component: Vec<u8>,
    pub evidence: Evidence,
    pub version: String,
    pub signed_by: String,
}

/// The policy, as its file says now.
pub(super) struct PolicyFile {
    path: PathBuf,
    /// How the file looked when rollouts were last judged by it.
    judged: Mutex<Option<Stamp>>,
}

type Stamp = Option<(u64, SystemTime)>;

impl PolicyFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, judged: Mutex::default() }
    }

    /// Where there is no file nobody is trusted, and the second says so. Blocks on the disk.
    fn load(&self) -> Result<(Policy, Option<PathBuf>), RolloutError> {
        if matches!(std::fs::symlink_metadata(&self.path), Err(e) if e.kind() == std::io::ErrorKind::NotFound)
        {
            return Ok((Policy::default(), Some(self.path.clone())));
        }
        Ok((Policy::load(&self.path)?, None))
    }

    /// Whether the file is another one than when this was last asked. True the first time.
    pub fn changed(&self) -> bool {
        let now = stamp(&self.path);
        lock(&self.judged).replace(now) != Some(now)
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

impl Rollouts {
    pub(super) async fn fetch(
        self: &Arc<Self>,
        plugin: &PluginId,
        reference: &str,
    ) -> Result<Found, RolloutError> {
        let counted =
            |result: &'static str| metrics::counter!(telemetry::PULLS, "result" => result).increment(1);
        let reference: Reference = reference.parse()?;
        let registry = self.settings.registries.iter().find(|r| r.host == reference.host);
        let registry = registry.ok_or_else(|| RolloutError::NoRegistry(reference.host.clone()))?;
        let _one = self.pulls.lock().await;
        let pulled =
            tokio::time::timeout(PULL_WITHIN, picket_registry::pull(reference, &access(registry))).await;
        let pulled = match pulled {
            Ok(Ok(pulled)) => pulled,
            Ok(Err(error)) => {
                counted("failed");
                return Err(error.into());
            }
            Err(_) => {
                counted("failed");
                return Err(RolloutError::Slow);
            }
        };
        let (this, plugin) = (Arc::clone(self), plugin.clone());
        let judged = blocking(move || {
            let verdict =
                this.judge(&plugin, &pulled.reference.to_string(), &pulled.component, &pulled.evidence)?;
            Ok::<_, RolloutError>(Found {
                resolved: pulled.reference.to_string(),
                digest: verdict.digest,
                version: verdict.manifest.as_ref().map(|m| m.version.clone()).unwrap_or_default(),
                signed_by: verdict.signed_by(),
                component: pulled.component,
                evidence: pulled.evidence,
            })
        })
        .await;
        counted(if judged.is_ok() { "ok" } else { "refused" });
        judged
    }

    fn judge(
        &self,
        plugin: &PluginId,
        what: &str,
        component: &[u8],
        evidence: &Evidence,
    ) -> Result<Verdict, RolloutError> {
        let (policy, missing) = self.policy.load()?;
        let subject = Subject { configured: Some(plugin), bytes: component, evidence };
        policy.judge(subject).map_err(|source| RolloutError::Untrusted {
            what: what.to_owned(),
            source: Box::new(source),
            missing,
        })
    }

    /// Whether what was pulled is still trusted. Blocks on the disk.
    pub(super) fn judge_again(&self, rollout: &Rollout) -> Result<(), RolloutError> {
        let digest = &rollout.machine.digest;
        let (component, evidence) = (self.artifacts.component(digest)?, self.artifacts.evidence(digest)?);
        let plugin = PluginId::new(&rollout.plugin)?;
        self.judge(&plugin, &rollout.resolved, &component, &evidence).map(drop)
    }

    /// Whether what nodes would go back to is revoked. Blocks on the disk.
    pub(super) fn check_former(&self, rollout: &Rollout) -> Result<(), RolloutError> {
        let (policy, _) = self.policy.load()?;
        let agents = rollout.machine.agents.iter().filter(|(_, agent)| agent.state != State::Waiting);
        let revoked = |text: &str| text.parse().is_ok_and(|digest: Digest| policy.revokes(&digest));
        let mut found: Vec<&str> =
            agents.map(|(_, agent)| agent.former.as_str()).filter(|former| revoked(former)).collect();
        found.sort_unstable();
        found.dedup();
        if found.is_empty() { Ok(()) } else { Err(RolloutError::RevokedFormer(found.join(", "))) }
    }
}

fn access(registry: &Registry) -> Access {
    Access {
        username: registry.username.clone(),
        password_file: registry.password_file.clone(),
        plain_http: registry.plain_http,
        authorities: registry.authorities.clone(),
        user_agent: concat!("picket-aggregator/", env!("CARGO_PKG_VERSION")),
    }
}
