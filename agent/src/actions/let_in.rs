//! Action plugins are let in like all others: read once, judged by the policy, and loaded from the agent's own copy.

use std::sync::Arc;

use super::actor::{Actor, ActorError, ActorLoader};
use crate::schedule::{BoxFuture, SourceSpec};
use crate::shelf::{Shelf, Which};

/// Loads what the shelf lets in.
pub struct LetIn {
    pub inner: Arc<dyn ActorLoader>,
    pub shelf: Arc<Shelf>,
}

impl ActorLoader for LetIn {
    fn load(&self, spec: SourceSpec) -> BoxFuture<'static, Result<Box<dyn Actor>, ActorError>> {
        let (inner, shelf) = (self.inner.clone(), self.shelf.clone());
        Box::pin(async move {
            let failed = |code: String, message: String| ActorError::Failed { code, message };
            let door = shelf.clone();
            let staged = tokio::task::spawn_blocking(move || door.stage(&spec, &Which::Wanted))
                .await
                .map_err(|error| failed(String::new(), error.to_string()))?
                .map_err(|no| failed(no.error.code, no.error.message))?;
            let actor = inner.load(staged.spec.clone()).await?;
            // What it runs from is kept.
            let adopted = tokio::task::spawn_blocking(move || {
                shelf.adopted(&staged.spec.id, &staged.version);
            });
            adopted.await.map_err(|error| failed(String::new(), error.to_string()))?;
            Ok(actor)
        })
    }
}
