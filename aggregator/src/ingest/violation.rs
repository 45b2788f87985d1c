//! How an agent can break the protocol.

use picket_proto::columns::CODEC;
use picket_proto::{columns, definitions};

use crate::store::{DefineError, UndefinedSeries};

/// Samples that one batch may bring.
pub(super) const MAX_SAMPLES: usize = 2 << 20;
/// Lives with batches on their way that one stream may have.
pub(super) const MAX_LIVES: usize = 64;

/// What breaks the protocol: the stream is ended with Goodbye `protocol`.
#[derive(Debug, thiserror::Error)]
pub(super) enum Violation {
    #[error("the first message must be Hello")]
    NoHello,
    #[error("Hello came twice")]
    HelloTwice,
    #[error("the agent writes codecs {theirs:?}, this aggregator reads {CODEC}; update the older of the two")]
    Codec { theirs: Vec<u32> },
    #[error("{what} came before Life")]
    NoLife { what: &'static str },
    #[error("a message without content; is the agent newer than this aggregator?")]
    Empty,
    #[error("sequences begin at 1")]
    Sequence,
    #[error("a batch of {samples} samples, {MAX_SAMPLES} are allowed")]
    TooLarge { samples: usize },
    #[error("a batch of log lines names a life of samples, or brings samples")]
    NotLogs,
    #[error("more than {MAX_LIVES} lives on one stream")]
    Lives,
    #[error("a renewal while another one is being done")]
    Renewal,
    #[error(transparent)]
    Columns(#[from] columns::ColumnsError),
    #[error(transparent)]
    Definitions(#[from] definitions::DefinitionsError),
    #[error(transparent)]
    Define(#[from] DefineError),
    #[error(transparent)]
    Undefined(#[from] UndefinedSeries),
}
