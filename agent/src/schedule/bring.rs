//! From what lies in the plugin folder to a source that runs: verified, checked, compiled, started, and tried beside the one
//! that runs.

use std::sync::Arc;

use super::source::{Loader, Source, SourceError, SourceSpec};
use super::status::State;
use super::trial::Trial;
use crate::shelf::{NotStaged, Shelf, Staged, Which};

/// The code of a source that could not read what it reads: that may be the node's fault, not the version's.
const SOURCE_FAILED: &str = "PKT-0069";

/// What runs while something new is brought up.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    pub digest: String,
    pub spec: SourceSpec,
    /// It runs, and not by a former spec.
    pub well: bool,
    /// Its own last collect could not read its source either.
    pub failing: bool,
}

/// How it ended.
pub(super) enum Brought {
    /// Something else runs from now on. `refused`: it is what ran last, because what is wanted can't.
    New { tried: Box<Tried>, refused: Option<NotStaged> },
    /// What runs is what is wanted.
    Same(Box<Staged>),
    /// What is wanted can't run. `stop`: what runs may not any more either.
    Refused { refused: NotStaged, stop: bool },
}

pub(super) struct Tried {
    pub source: Box<dyn Source>,
    pub staged: Staged,
    /// With it, whether the collect came to its end. None: nothing ran beside it, so that there was nothing to keep it from.
    pub trial: Option<(Trial, bool)>,
}

pub(super) async fn bring(
    loader: Arc<dyn Loader>,
    shelf: Arc<Shelf>,
    spec: SourceSpec,
    beside: Option<Beside>,
) -> Brought {
    let staged = match stage(&shelf, &spec, Which::Wanted).await {
        Ok(staged) => staged,
        Err(refused) => return instead(loader, shelf, spec, beside, refused).await,
    };
    if let Some(beside) = &beside
        && beside.well
        && beside.digest == staged.version.digest
        && beside.spec == spec
    {
        return Brought::Same(Box::new(staged));
    }
    match start(&*loader, &spec, staged, beside.as_ref()).await {
        Ok(tried) => Brought::New { tried: Box::new(tried), refused: None },
        Err(refused) => instead(loader, shelf, spec, beside, refused).await,
    }
}

/// What runs instead of what was refused: what runs already; at the agent's start, what ran before it ended.
async fn instead(
    loader: Arc<dyn Loader>,
    shelf: Arc<Shelf>,
    spec: SourceSpec,
    beside: Option<Beside>,
    refused: NotStaged,
) -> Brought {
    if let Some(beside) = beside {
        let again = stage(&shelf, &spec, Which::Kept(beside.digest.clone())).await;
        // What is quarantined stops by itself.
        let stop = again.as_ref().is_err_and(|no| no.error.reason == crate::trust::REASON);
        let refused = match again {
            Err(no) if stop => no,
            _ => refused,
        };
        return Brought::Refused { refused, stop };
    }
    // Where nothing lies in the folder nothing is wanted.
    let former = shelf.record(&spec.id).current.filter(|kept| {
        spec.file.symlink_metadata().is_ok() && !refused.digest.is_empty() && kept.digest != refused.digest
    });
    if let Some(former) = former
        && let Ok(staged) = stage(&shelf, &spec, Which::Kept(former.digest)).await
        && let Ok(tried) = start(&*loader, &spec, staged, None).await
    {
        return Brought::New { tried: Box::new(tried), refused: Some(refused) };
    }
    Brought::Refused { refused, stop: false }
}

/// [`Shelf::stage`], which blocks.
pub(crate) async fn stage(shelf: &Arc<Shelf>, spec: &SourceSpec, which: Which) -> Result<Staged, NotStaged> {
    let (shelf, spec) = (shelf.clone(), spec.clone());
    let staged = tokio::task::spawn_blocking(move || shelf.stage(&spec, &which)).await;
    staged.unwrap_or_else(|error| {
        Err(NotStaged {
            digest: String::new(),
            version: String::new(),
            error: SourceError {
                code: String::new(),
                message: format!("the agent failed while it read the plugin: {error}; please report it"),
                reason: "host",
            },
        })
    })
}

async fn start(
    loader: &dyn Loader,
    wanted: &SourceSpec,
    staged: Staged,
    beside: Option<&Beside>,
) -> Result<Tried, NotStaged> {
    let refused = |error: SourceError| NotStaged {
        digest: staged.version.digest.clone(),
        version: staged.version.version.clone(),
        error,
    };
    let mut source = loader.load(staged.spec.clone()).await.map_err(|error| {
        // The operator knows the file by the name that it was dropped with.
        let (copy, dropped) = (staged.spec.file.display().to_string(), wanted.file.display().to_string());
        refused(SourceError { message: error.message.replace(&copy, &dropped), ..error })
    })?;
    let Some(beside) = beside else { return Ok(Tried { source, staged, trial: None }) };
    let mut trial = Trial::default();
    let whole = match source.collect(&mut trial).await {
        Ok(_) => true,
        // The former one can't read its source either: this tells nothing of the new one.
        Err(error) if error.code == SOURCE_FAILED && beside.failing => false,
        Err(error) => {
            let message = format!("its first collect, on trial, failed: {}", error.message);
            return Err(refused(SourceError { message, ..error }));
        }
    };
    let condition = source.condition();
    if condition.state != State::Running {
        let error = SourceError { code: String::new(), message: condition.reason, reason: "plugin" };
        return Err(refused(error));
    }
    Ok(Tried { source, staged, trial: Some((trial, whole)) })
}
