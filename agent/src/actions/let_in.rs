//! Action plugins are let in like all others: read once, judged by the policy, and loaded from the agent's own copy.

use std::sync::Arc;

use super::actor::{Actor, ActorError, ActorLoader};
use crate::schedule::{RefusedVersion, SourceSpec, stage};
use crate::shelf::{Shelf, Staged, Which};

/// What may run.
pub(super) struct LetIn {
    pub actor: Box<dyn Actor>,
    /// What it was loaded from, held.
    pub staged: Staged,
}

/// Beside what runs, which it leaves alone.
pub(super) async fn let_in(
    loader: &dyn ActorLoader,
    shelf: &Arc<Shelf>,
    spec: &SourceSpec,
    which: Which,
) -> Result<LetIn, RefusedVersion> {
    let staged = stage(shelf, spec, which).await.map_err(|no| RefusedVersion::from(&no))?;
    match loader.load(staged.spec.clone()).await {
        Ok(actor) => Ok(LetIn { actor, staged }),
        Err(error) => {
            let (digest, version) = (staged.version.digest, staged.version.version);
            let (code, reason) = match error {
                ActorError::Failed { code, message } => (code, message),
                ActorError::Declined(no) => (String::new(), no.to_string()),
            };
            Err(RefusedVersion { digest, version, code, reason })
        }
    }
}
