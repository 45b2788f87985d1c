//! The frames themselves, as bytes. Reading and writing them is left to each side: one of them is asynchronous.

/// The longest frame, in bytes: sixteen GPUs with seven MIG instances and some hundred processes each need a tenth.
pub const MAX_FRAME: usize = 4 << 20;

/// What came is no frame of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes; at most {MAX_FRAME} are allowed")]
    TooLong(usize),
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    #[error("a frame that ends too early")]
    Short,
    #[error("{0} bytes after the end of a frame's content")]
    Rest(usize),
    #[error("a frame's text is not UTF-8")]
    Text,
}

/// From the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Snapshot,
}

/// From the helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// The answer to [`Ask::Snapshot`].
    Snapshot {
        /// Members of a JSON object, without its braces.
        system: String,
        devices: Vec<DeviceText>,
    },
    /// There is no library or no driver; the helper ends.
    NoDriver(String),
    /// The library fails as a whole; the helper ends.
    Failed(String),
    /// A call does not return; the helper ends if it can.
    Hung {
        /// The library's function.
        call: String,
        /// The device that it asks, as a person knows it; empty: none.
        device: String,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    Xid(XidText),
    /// Events can't be listened for; the rest goes on.
    NoEvents(String),
}

/// A device of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceText {
    /// The GPU's, of a MIG instance too: what a grant names. Empty: unknown.
    pub gpu: String,
    /// A JSON object.
    pub json: String,
}

/// An XID event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XidText {
    /// The GPU's.
    pub uuid: String,
    pub xid: u64,
    pub gpu_instance_id: Option<u32>,
    pub compute_instance_id: Option<u32>,
}

/// How many bytes follow these four.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn length(head: [u8; 4]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if length > MAX_FRAME { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

impl Ask {
    /// The whole frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Snapshot => Writer::new(1).finish(),
        }
    }

    /// Of what follows the four bytes of the length.
    ///
    /// # Errors
    /// Any [`FrameError`].
    pub fn decode(frame: &[u8]) -> Result<Self, FrameError> {
        let (kind, reader) = Reader::new(frame)?;
        let ask = match kind {
            1 => Self::Snapshot,
            other => return Err(FrameError::Kind(other)),
        };
        reader.end()?;
        Ok(ask)
    }
}

impl Tell {
    /// The whole frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer;
        match self {
            Self::Snapshot { system, devices } => {
                writer = Writer::new(1);
                writer.text(system);
                writer.number(devices.len());
                for device in devices {
                    writer.text(&device.gpu);
                    writer.text(&device.json);
                }
            }
            Self::NoDriver(why) => {
                writer = Writer::new(2);
                writer.text(why);
            }
            Self::Failed(why) => {
                writer = Writer::new(3);
                writer.text(why);
            }
            Self::Hung { call, device, for_ms } => {
                writer = Writer::new(4);
                writer.text(call);
                writer.text(device);
                writer.long(*for_ms);
            }
            Self::Xid(event) => {
                writer = Writer::new(5);
                writer.text(&event.uuid);
                writer.long(event.xid);
                writer.optional(event.gpu_instance_id);
                writer.optional(event.compute_instance_id);
            }
            Self::NoEvents(why) => {
                writer = Writer::new(6);
                writer.text(why);
            }
        }
        writer.finish()
    }

    /// Of what follows the four bytes of the length.
    ///
    /// # Errors
    /// Any [`FrameError`].
    pub fn decode(frame: &[u8]) -> Result<Self, FrameError> {
        let (kind, mut reader) = Reader::new(frame)?;
        let tell = match kind {
            1 => {
                let system = reader.text()?;
                let count = reader.number()?;
                let mut devices = Vec::new();
                for _ in 0..count {
                    devices.push(DeviceText { gpu: reader.text()?, json: reader.text()? });
                }
                Self::Snapshot { system, devices }
            }
            2 => Self::NoDriver(reader.text()?),
            3 => Self::Failed(reader.text()?),
            4 => Self::Hung { call: reader.text()?, device: reader.text()?, for_ms: reader.long()? },
            5 => Self::Xid(XidText {
                uuid: reader.text()?,
                xid: reader.long()?,
                gpu_instance_id: reader.optional()?,
                compute_instance_id: reader.optional()?,
            }),
            6 => Self::NoEvents(reader.text()?),
            other => return Err(FrameError::Kind(other)),
        };
        reader.end()?;
        Ok(tell)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u8) -> Self {
        Self(vec![0, 0, 0, 0, kind])
    }

    fn number(&mut self, number: usize) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn long(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// All ones stand for none, as in the library itself.
    fn optional(&mut self, number: Option<u32>) {
        self.0.extend_from_slice(&number.unwrap_or(u32::MAX).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len().saturating_sub(4)).unwrap_or(u32::MAX);
        if let Some(head) = self.0.first_chunk_mut() {
            *head = length.to_le_bytes();
        }
        self.0
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(frame: &'a [u8]) -> Result<(u8, Self), FrameError> {
        let (kind, rest) = frame.split_first().ok_or(FrameError::Short)?;
        Ok((*kind, Self(rest)))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(FrameError::Short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn number(&mut self) -> Result<usize, FrameError> {
        let number = u32::from_le_bytes(self.take()?);
        usize::try_from(number).map_err(|_| FrameError::Short)
    }

    fn long(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_le_bytes)
    }

    fn optional(&mut self) -> Result<Option<u32>, FrameError> {
        let number = u32::from_le_bytes(self.take()?);
        Ok(Some(number).filter(|n| *n != u32::MAX))
    }

    fn text(&mut self) -> Result<String, FrameError> {
        let length = self.number()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(FrameError::Short)?;
        self.0 = rest;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| FrameError::Text)
    }

    fn end(self) -> Result<(), FrameError> {
        if self.0.is_empty() { Ok(()) } else { Err(FrameError::Rest(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        "\\PC{0,40}"
    }

    fn tells() -> impl Strategy<Value = Tell> {
        let device = (text(), text()).prop_map(|(gpu, json)| DeviceText { gpu, json });
        let id = || prop::option::of(0..u32::MAX);
        prop_oneof![
            (text(), prop::collection::vec(device, 0..5))
                .prop_map(|(system, devices)| Tell::Snapshot { system, devices }),
            text().prop_map(Tell::NoDriver),
            text().prop_map(Tell::Failed),
            (text(), text(), any::<u64>()).prop_map(|(call, device, for_ms)| Tell::Hung {
                call,
                device,
                for_ms
            }),
            (text(), any::<u64>(), id(), id()).prop_map(
                |(uuid, xid, gpu_instance_id, compute_instance_id)| {
                    Tell::Xid(XidText { uuid, xid, gpu_instance_id, compute_instance_id })
                }
            ),
            text().prop_map(Tell::NoEvents),
        ]
    }

    fn split(frame: &[u8]) -> &[u8] {
        let (head, rest) = frame.split_first_chunk().unwrap();
        assert_eq!(length(*head).unwrap(), rest.len());
        rest
    }

    #[test]
    fn asks() {
        assert_eq!(Ask::decode(split(&Ask::Snapshot.encode())), Ok(Ask::Snapshot));
        assert_eq!(Ask::decode(&[]), Err(FrameError::Short));
        assert_eq!(Ask::decode(&[9]), Err(FrameError::Kind(9)));
        assert_eq!(Ask::decode(&[1, 0]), Err(FrameError::Rest(1)));
        assert!(matches!(length([255; 4]), Err(FrameError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn what_is_told_is_heard(tell in tells()) {
            prop_assert_eq!(Tell::decode(split(&tell.encode())), Ok(tell));
        }

        #[test]
        fn a_cut_or_changed_frame_is_no_panic(tell in tells(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut frame = split(&tell.encode()).to_vec();
            let at = at.index(frame.len());
            prop_assert!(Tell::decode(&frame[..at]).is_err());
            frame[at] = byte;
            let _ = Tell::decode(&frame);
        }

        #[test]
        fn foreign_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Tell::decode(&bytes), Ask::decode(&bytes));
        }
    }
}
