//! An instance of a plugin as its owner sees it, wherever it runs: in this process or in a worker.

use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;

use picket_agent_services::grants::Capability;
use picket_proto::model::PluginId;
use serde::{Deserialize, Serialize};

use crate::Isolation;
use crate::call::{Bounds, Call, Cost, Returned, Stopped};
use crate::desk::Desk;
use crate::versions::Edition;

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One instance. Dropped midway through a call it ends, and takes what it was doing with it.
pub(crate) trait Body: Send {
    /// One call into the guest; what it asks meanwhile is answered by `desk`. After a [`Stopped`] it must be dropped.
    fn enter<'a>(&'a mut self, call: Call, desk: &'a mut Desk) -> BoxFuture<'a, Result<Returned, Stopped>>;

    /// What the last call cost.
    fn cost(&self) -> Cost;

    /// False where the process that ran it is no more.
    fn alive(&self) -> bool;
}

/// One loaded component: makes instances.
pub(crate) trait Seat: Send + Sync {
    /// `apart`: away from other plugins, where there is a choice.
    fn make<'a>(
        &'a mut self,
        desk: &'a mut Desk,
        apart: bool,
    ) -> BoxFuture<'a, Result<Box<dyn Body>, Stopped>>;
}

/// Where plugins run.
pub(crate) trait Place: Send + Sync {
    fn put(&self, put: Put) -> BoxFuture<'_, Result<Box<dyn Seat>, NotPut>>;
}

/// A compiled component that was admitted.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub plugin: PluginId,
    /// What the compiler wrote, open for reading.
    pub compiled: Arc<File>,
    /// The interfaces that it is linked with.
    pub capabilities: Vec<Capability>,
    pub world: World,
    pub bounds: Bounds,
    pub isolation: Isolation,
}

/// What it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum World {
    Source {
        edition: Edition,
        /// It exports `control`.
        controllable: bool,
    },
    Action,
}

/// Why a compiled component could not be put anywhere.
#[derive(Debug)]
pub(crate) enum NotPut {
    /// It was compiled by another engine, or for another processor.
    Stale(String),
    /// It does not fit the interfaces.
    Unlinkable(String),
    /// There is no process to run it.
    NoRoom(String),
}
