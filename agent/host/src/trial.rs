//! For this crate's examples and the fuzzer alone, which try the second wall and the agent's patience: the wall as a worker has it
//! around any code, frames as a worker writes them, and foreign bytes where they are first looked at.

use crate::call::Cost;
use crate::wall::{self, Part, Plan, Room, Wall};
use crate::worker::trial;

/// Raises a worker's wall, leaves parts of it out, and runs `within` behind it, on the same thread.
///
/// # Errors
/// The thread that counts a worker's time cannot be started.
pub fn walled<T>(
    user: Option<(u32, u32)>,
    without: &[Part],
    within: impl FnOnce(&Wall) -> T,
) -> Result<T, String> {
    let plan = Plan { room: Room::Worker, user, memory: 256 << 20, address_space: 8 << 30 };
    let mut wall = wall::raise_but(&plan, without);
    let engine = crate::engine::runtime().map_err(|e| crate::fault::chain(&e))?;
    let _ticker = crate::ticker::Ticker::start(&engine).map_err(|e| e.to_string())?;
    wall::seal_but(&plan, &mut wall, without);
    Ok(within(&wall))
}

/// A frame of any kind, with any body.
pub fn frame(kind: u8, number: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    length
        .to_le_bytes()
        .into_iter()
        .chain([kind])
        .chain(number.to_le_bytes())
        .chain(body.iter().copied())
        .collect()
}

/// A worker's first word.
pub fn ready() -> Vec<u8> {
    trial::ready()
}

/// "It is mapped."
pub fn loaded(seat: u64) -> Vec<u8> {
    trial::loaded(seat)
}

/// "The instance is made."
pub fn made(instance: u64) -> Vec<u8> {
    trial::made(instance)
}

/// A host call that is always answered: a line for the log.
pub fn ask(instance: u64) -> Vec<u8> {
    trial::ask(instance)
}

/// Looks into a component without compiling it.
///
/// # Errors
/// Why it is no plugin for this agent.
pub fn inspected(bytes: &[u8]) -> Result<(), String> {
    crate::component::inspect(bytes).map(drop).map_err(|unfit| unfit.message)
}

/// Answers what a worker that was taken over may say of a plugin without grants: a list of a kind, a length in four bytes
/// and a body. What it left is handed to a sink, which looks whether the sink's promises are kept.
///
/// # Panics
/// They are not.
pub fn answered(bytes: &[u8]) {
    trial::answered(bytes);
}

/// Good examples of what [`answered`] takes, each with a name.
pub fn reports() -> Vec<(&'static str, Vec<u8>)> {
    trial::reports()
}

/// Compiles, links and instantiates a component in this process, and calls `describe` and `collect` where it comes so far:
/// within a tenth of a second of the guest's time, and without a grant.
#[cfg(feature = "compile")]
pub fn instantiated(bytes: &[u8]) {
    trial::instantiated(bytes);
}

/// "The call has ended well", of a describe that names no family or of another call.
pub fn done(instance: u64, describe: bool) -> Vec<u8> {
    trial::done(instance, describe, Cost::default())
}
