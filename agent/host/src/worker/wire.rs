//! The frames between the agent and a worker, and what the agent takes of them.
//!
//! A frame is its body's length (4 bytes, little endian), its kind (1), a number of the kind's own (8), and the body
//! (postcard). What comes from a worker is anybody's: the length is checked before anything is read, by what the plugin
//! may pass in one host call; and a body's small parts are counted while it is decoded, because many empty ones take more
//! room in memory than on the wire.

use picket_agent_services::grants::Capability;
use postcard::de_flavors::Flavor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ask::{Ask, Told};
use crate::body::World;
use crate::call::{Bounds, Call, Cost, Returned, Stopped};
use crate::wall::Wall;

pub(crate) const HEAD: usize = 13;
/// The most bytes of a frame towards a worker.
pub(crate) const MAX_ORDER: usize = 32 << 20;
/// The most bytes of a frame that is not a host call's or a call's.
pub(crate) const MAX_SMALL: usize = 64 << 10;
/// What a host call may have beyond `hostcall_bytes`: names, numbers.
const SLACK: usize = 64 << 10;

/// Both sides are of one version, which this stands for.
pub(crate) const VERSION: &str = concat!("picket-worker ", env!("CARGO_PKG_VERSION"), " 2");

/// Why a frame is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("it sent a frame of the unknown kind {0}")]
    Kind(u8),
    #[error("it sent a frame of {length} bytes where {most} are allowed")]
    Length { length: usize, most: usize },
    #[error("it sent a frame that cannot be read: {0}")]
    Body(String),
    #[error("it sent a frame out of turn: {0}")]
    Turn(&'static str),
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub length: usize,
    pub kind: u8,
    pub number: u64,
}

impl Head {
    pub(crate) fn read(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, d, kind, number @ ..] = bytes;
        Self { length: u32::from_le_bytes([a, b, c, d]) as usize, kind, number: u64::from_le_bytes(number) }
    }
}

/// From the agent. The head's number is the seat's in the first three, else the instance's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Map a component; its file goes with the frame's first byte.
    Load(Load),
    Unload,
    /// Make an instance of the seat.
    Make {
        seat: u64,
    },
    Enter(Call),
    Tell(Told),
    /// End the instance, whatever it is at.
    End,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// The words of the interfaces that it is linked with.
    pub capabilities: Vec<String>,
    pub world: World,
    pub bounds: Bounds,
    /// The file's length.
    pub length: u64,
}

impl Load {
    /// None: a word that this version does not know.
    pub(crate) fn capabilities(&self) -> Option<Vec<Capability>> {
        self.capabilities.iter().map(|word| Capability::from_word(word)).collect()
    }
}

/// From a worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Report {
    Ready(Ready),
    Loaded(Result<(), NotLoaded>),
    Made(Result<(), Stopped>),
    Ask(Ask),
    Done(Result<Returned, Stopped>, Cost),
    Ended,
}

/// A worker's first word, before it has touched anything of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub version: String,
    pub wall: Wall,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum NotLoaded {
    Stale(String),
    Unlinkable(String),
}

pub(crate) const READY: u8 = 1;
pub(crate) const LOADED: u8 = 2;
pub(crate) const MADE: u8 = 3;
pub(crate) const ASK: u8 = 4;
pub(crate) const DONE: u8 = 5;
pub(crate) const ENDED: u8 = 6;
const ORDER: u8 = 7;

/// The most bytes of a frame of this kind from a plugin that may pass so much in one host call.
pub(crate) fn most(kind: u8, hostcall_bytes: u64) -> usize {
    match kind {
        ASK | DONE => usize::try_from(hostcall_bytes).unwrap_or(usize::MAX).saturating_add(SLACK),
        _ => MAX_SMALL,
    }
}

impl Order {
    /// None: it is larger than what may cross.
    pub(crate) fn encode(&self, number: u64) -> Option<Vec<u8>> {
        frame(ORDER, number, self).filter(|f| f.len() <= MAX_ORDER)
    }

    pub(crate) fn decode(kind: u8, body: &[u8]) -> Result<Self, Broken> {
        if kind != ORDER {
            return Err(Broken::Kind(kind));
        }
        // The agent is trusted: what it sends may have as many parts as it has bytes.
        read(body, body.len())
    }
}

impl Report {
    pub(crate) fn encode(&self, number: u64) -> Option<Vec<u8>> {
        match self {
            Self::Ready(ready) => frame(READY, number, ready),
            Self::Loaded(loaded) => frame(LOADED, number, loaded),
            Self::Made(made) => frame(MADE, number, made),
            Self::Ask(ask) => frame(ASK, number, ask),
            Self::Done(returned, cost) => frame(DONE, number, &(returned, cost)),
            Self::Ended => frame(ENDED, number, &()),
        }
    }

    /// As the agent takes it, where a body may be `most` bytes long.
    pub(crate) fn decode(kind: u8, body: &[u8], most: usize) -> Result<Self, Broken> {
        if body.len() > most {
            return Err(Broken::Length { length: body.len(), most });
        }
        // A part takes up to 24 bytes of memory. Where it left the plugin it was charged at least twenty.
        let parts = most / 16 + 4096;
        match kind {
            READY => read(body, parts).map(Self::Ready),
            LOADED => read(body, parts).map(Self::Loaded),
            MADE => read(body, parts).map(Self::Made),
            ASK => read(body, parts).map(Self::Ask),
            DONE => read::<(_, _)>(body, parts).map(|(returned, cost)| Self::Done(returned, cost)),
            ENDED => read::<()>(body, parts).map(|()| Self::Ended),
            other => Err(Broken::Kind(other)),
        }
    }
}

/// None: longer than a length can say.
fn frame(kind: u8, number: u64, body: &impl Serialize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    bytes = postcard::to_extend(body, bytes).ok()?;
    let length = u32::try_from(bytes.len() - HEAD).ok()?;
    let head: Vec<u8> = length.to_le_bytes().into_iter().chain([kind]).chain(number.to_le_bytes()).collect();
    bytes.get_mut(..HEAD)?.copy_from_slice(&head);
    Some(bytes)
}

fn read<T: DeserializeOwned>(body: &[u8], parts: usize) -> Result<T, Broken> {
    let broken = |e: postcard::Error| Broken::Body(e.to_string());
    let mut deserializer = postcard::Deserializer::from_flavor(Counted { rest: body, parts });
    let value = T::deserialize(&mut deserializer).map_err(broken)?;
    let rest = deserializer.finalize().map_err(broken)?;
    if rest.is_empty() { Ok(value) } else { Err(Broken::Body(format!("{} bytes are left over", rest.len()))) }
}

/// Counts the single bytes that are read: one at least for each number, length and choice. Texts and columns of bytes are
/// taken whole.
struct Counted<'de> {
    rest: &'de [u8],
    parts: usize,
}

impl<'de> Flavor<'de> for Counted<'de> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];

    fn pop(&mut self) -> postcard::Result<u8> {
        self.parts = self.parts.checked_sub(1).ok_or(postcard::Error::DeserializeBadEncoding)?;
        let (first, rest) = self.rest.split_first().ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(*first)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }

    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(taken)
    }

    fn finalize(self) -> postcard::Result<&'de [u8]> {
        Ok(self.rest)
    }
}
