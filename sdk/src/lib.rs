//! Picket's plugin SDK.
//!
//! A source is a type that implements [`Source`]: it declares its metric families once, takes its settings, and
//! sets values on each `collect`. [`export!`] makes a component of it.
//!
//! ```
//! use picket_sdk::{Collect, Describe, Failure, GaugeFamily, NoSettings, Source, files};
//!
//! struct Load {
//!     load1: GaugeFamily,
//! }
//!
//! impl Source for Load {
//!     type Settings = NoSettings;
//!
//!     fn describe(d: &mut Describe) -> Self {
//!         Self { load1: d.gauge("node_load1", "1m load average.") }
//!     }
//!
//!     fn collect(&mut self, _: &mut Collect<'_>) -> Result<(), Failure> {
//!         let text = files::read("/proc/loadavg")?;
//!         let first = text.split(|b| *b == b' ').next().and_then(|w| std::str::from_utf8(w).ok());
//!         let value = first.and_then(|w| w.parse().ok());
//!         self.load1.set(value.ok_or_else(|| Failure::new("parse", "/proc/loadavg has no number"))?);
//!         Ok(())
//!     }
//! }
//!
//! picket_sdk::export!(Load);
//! # fn main() {}
//! ```
//!
//! What the SDK does underneath: a series is registered with the host when it is first set and is a number from
//! then on; points cross the border in chunks; a series that a collect no longer sets is retired
//! ([`Describe::retire_after`]). After a restart of the instance all of that begins anew, by itself.
//!
//! A value that can't be read is left unset, and [`Collect::fail`] says so: never export a made-up number.
//!
//! Natively (not `wasm32`) the same plugin runs under [`testing::Host`], so tests need no WebAssembly.
//!
//! A plugin that changes something instead is an [`action::Action`].
#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

mod core;
mod describe;
mod dynamic;
mod event;
mod families;
mod model;
mod runner;
mod series;
mod source;

pub mod action;
pub mod clock;
pub mod command;
pub mod containers;
pub mod containers_control;
pub mod exposition;
pub mod files;
pub mod files_write;
pub mod http;
pub mod kmsg;
pub mod log;
pub mod logs;
pub mod nvml;
pub mod random;
pub mod store;
pub mod system;
pub mod systemd_control;
pub mod unix_http;
pub mod upstream;

#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

/// What the macros use; not for plugins.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[path = "guest.rs"]
pub mod __guest;

#[cfg(target_arch = "wasm32")]
use __guest as sys;
#[cfg(not(target_arch = "wasm32"))]
use testing::backend as sys;

pub use describe::Describe;
pub use dynamic::{DynamicFamily, FamilyDefinition};
pub use event::{Event, EventView, Severity};
pub use families::{CounterFamily, GaugeFamily, HistogramFamily, InfoFamily, StateSetFamily, UnknownFamily};
pub use model::{MetricType, Part};
pub use series::{Counter, Gauge, Histogram, Info, KeptCounter, KeptGauge, StateSet, Unknown};
pub use source::{Collect, Controllable, Failure, NoSettings, Refused, Source};

/// For settings and control schemas that are put together by hand.
pub use serde_json;

/// Makes a source plugin's component exports of a type that implements [`Source`]. Once a crate (a `cdylib`).
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::__runner!($plugin);
            type Exported = $crate::__guest::Component<$plugin>;
    $crate::__guest::__export_source!(Exported with_types_in $crate::__guest::source);
        };
    };
}

/// As [`export!`], of a type that implements [`Controllable`] too.
#[macro_export]
macro_rules! export_controllable {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::__runner!($plugin);
            type Exported = $crate::__guest::Component<$plugin>;
    $crate::__guest::__export_source!(Exported with_types_in $crate::__guest::source);
    $crate::__guest::__export_control!(Exported with_types_in $crate::__guest::control);
        };
    };
}

/// Makes an action plugin's component exports of a type that implements [`action::Action`]. Once a crate (a `cdylib`).
#[macro_export]
macro_rules! export_action {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: $crate::__guest::ActionSlot<$plugin> = const { $crate::__guest::ActionSlot::new() };
            }
            impl $crate::__guest::ActionInstance for $plugin {
                fn put(self) {
                    INSTANCE.with(|slot| slot.put(self));
                }
                fn with<R>(f: impl FnOnce(&mut Self) -> R) -> Option<R> {
                    INSTANCE.with(|slot| slot.with(f))
                }
            }
            type Exported = $crate::__guest::ActionComponent<$plugin>;
    $crate::__guest::__export_action!(Exported with_types_in $crate::__guest::action);
        };
    };
}

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[macro_export]
macro_rules! __runner {
    ($plugin:ty) => {
        ::std::thread_local! {
            static RUNNER: $crate::__guest::Slot<$plugin> = const { $crate::__guest::Slot::new() };
        }
        impl $crate::__guest::Instance for $plugin {
            fn with<R>(f: impl FnOnce(&mut $crate::__guest::Runner<Self>) -> R) -> R {
                RUNNER.with(|slot| slot.with(f))
            }
        }
    };
}
