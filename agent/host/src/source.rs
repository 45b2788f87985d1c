//! A source's exports, of either version that is served: found, loaded, called.

use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use crate::bindings::exports::picket::source::{control as current_control, source as current};
use crate::call::{Call, Returned};
use crate::former::bindings::exports::picket::source::{control as former_control, source as former};
use crate::guest::Guest;
use crate::versions::Edition;

/// Where they are in a component.
pub(crate) enum Indices {
    Current(current::GuestIndices, Option<current_control::GuestIndices>),
    Former(former::GuestIndices, Option<former_control::GuestIndices>),
}

/// The same of an instance.
pub(crate) enum Source {
    Current(current::Guest, Option<current_control::Guest>),
    Former(former::Guest, Option<former_control::Guest>),
}

impl Indices {
    pub(crate) fn new(
        pre: &InstancePre<Guest>,
        edition: Edition,
        controllable: bool,
    ) -> wasmtime::Result<Self> {
        Ok(match edition {
            Edition::Current => {
                let control = controllable.then(|| current_control::GuestIndices::new(pre)).transpose()?;
                Self::Current(current::GuestIndices::new(pre)?, control)
            }
            Edition::Former => {
                let control = controllable.then(|| former_control::GuestIndices::new(pre)).transpose()?;
                Self::Former(former::GuestIndices::new(pre)?, control)
            }
        })
    }

    pub(crate) fn load(&self, store: &mut Store<Guest>, instance: &Instance) -> wasmtime::Result<Source> {
        Ok(match self {
            Self::Current(source, control) => Source::Current(
                source.load(&mut *store, instance)?,
                control.as_ref().map(|c| c.load(&mut *store, instance)).transpose()?,
            ),
            Self::Former(source, control) => Source::Former(
                source.load(&mut *store, instance)?,
                control.as_ref().map(|c| c.load(&mut *store, instance)).transpose()?,
            ),
        })
    }
}

/// The call, in the words of either version: they are spelt alike.
macro_rules! enter {
    ($source:ident, $control:ident, $version:ident, $store:ident, $call:ident) => {{
        let control =
            || $control.as_ref().ok_or_else(|| wasmtime::Error::msg("the plugin exports no control"));
        match $call {
            Call::Action(_) => return Err(wasmtime::Error::msg("the plugin is a source, no action")),
            Call::Describe => {
                let description = $source.call_describe($store).await?;
                Returned::Described(description.families.into_iter().map(Into::into).collect())
            }
            Call::Configure(settings) => {
                let done = $source.call_configure($store, &settings).await?;
                Returned::Done(done.map_err(|e| (e.reason, e.message)))
            }
            Call::Collect => {
                Returned::Done($source.call_collect($store).await?.map_err(|e| (e.reason, e.message)))
            }
            Call::ControlSchema => Returned::Text(control()?.call_schema($store).await?),
            Call::ControlGet => Returned::Text(control()?.call_get($store).await?),
            Call::ControlSet(settings) => {
                let answer = control()?.call_set($store, &settings).await?;
                Returned::Set(answer.map_err(|e| match e {
                    $version::ControlError::Refused(lines) => lines,
                    $version::ControlError::Other(line) => vec![line],
                }))
            }
        }
    }};
}

impl Source {
    pub(crate) async fn enter(&self, store: &mut Store<Guest>, call: Call) -> wasmtime::Result<Returned> {
        Ok(match self {
            Self::Current(source, control) => enter!(source, control, current_control, store, call),
            Self::Former(source, control) => enter!(source, control, former_control, store, call),
        })
    }
}
