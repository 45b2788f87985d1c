//! A record as /dev/kmsg gives it: `6,339,5140900,-;NET: Registered protocol family 10` and lines of a dictionary, each
//! after a space. The number before the first comma is facility and priority, then come the sequence number and
//! microseconds since the boot.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub priority: u8,
    pub facility: u8,
    pub sequence: u64,
    pub since_boot_us: u64,
    pub text: String,
}

impl Record {
    /// None: the line is no record's first one.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (head, text) = line.split_once(';')?;
        let mut fields = head.split(',');
        let level: u32 = fields.next()?.parse().ok()?;
        let sequence = fields.next()?.parse().ok()?;
        let since_boot_us = fields.next()?.parse().ok()?;
        Some(Self {
            priority: u8::try_from(level & 7).ok()?,
            // The syslog's facilities are 24; the kernel keeps more bits for what people write.
            facility: u8::try_from(level >> 3).unwrap_or(u8::MAX),
            sequence,
            since_boot_us,
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_of_the_kernel() {
        let xid = b"3,1402,5140900123,-;NVRM: Xid (PCI:0000:1b:00): 79, pid='<unknown>', GPU has fallen off the bus.";
        let record = Record::parse(xid).unwrap();
        assert_eq!((record.priority, record.facility), (3, 0));
        assert_eq!((record.sequence, record.since_boot_us), (1402, 5_140_900_123));
        assert!(record.text.starts_with("NVRM: Xid (PCI:0000:1b:00): 79"), "{}", record.text);
        // With the caller's id, a fragment's flag, and a text that holds the separators.
        let other = Record::parse(b"30,7,1,c,caller=T1;a;b,c").unwrap();
        assert_eq!((other.priority, other.facility, other.text.as_str()), (6, 3, "a;b,c"));
        for no in
            [&b" SUBSYSTEM=pci"[..], b"", b"x,1,2,-;a", b"6,1;a", b"6,1,2,-", b"6,-1,2,-;a", b"6,1,2,-;\xff"]
        {
            assert_eq!(Record::parse(no), None, "{no:?}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_no_panic(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Record::parse(&line);
        }
    }
}
