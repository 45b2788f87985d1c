//! What the newest segment of a folder holds, without taking the folder: for a caller who must know how far it came before
//! it opens the spool, which may drop what is acknowledged at once.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::format::{Scan, Source, read_segment_head};
use crate::recovery::segment_number;

/// Gives the life and the header of the newest segment whose head is good, then calls `record` for each good record of
/// it in order, up to the first damaged one. `None`: there is no such segment. Blocks.
///
/// # Errors
/// The folder or the file can't be read.
pub fn newest_segment(dir: &Path, mut record: impl FnMut(Bytes)) -> io::Result<Option<(u64, Bytes)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut found: Vec<(u64, std::path::PathBuf)> = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(segment_number) {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    while let Some((_, path)) = found.pop() {
        let file = fs::File::open(&path)?;
        let end = file.metadata()?.len();
        let mut source = Source::new(Arc::new(file));
        let Some(head) = read_segment_head(&mut source, end)? else { continue };
        let mut scan = Scan::new(&head);
        while let Some(good) = scan.step(&mut source, end, true)? {
            record(good.bytes);
        }
        return Ok(Some((head.life, head.header)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Options, Spool};

    fn open(dir: &Path, life: u64) -> Spool {
        let options = Options {
            dir: dir.to_owned(),
            max_bytes: 1 << 20,
            max_age: Duration::from_secs(3600),
            segment_bytes: 4 << 10,
            queue_bytes: 1 << 20,
        };
        Spool::open(options, life).unwrap()
    }

    fn newest(dir: &Path) -> Option<(u64, Bytes, Vec<Bytes>)> {
        let mut records = Vec::new();
        newest_segment(dir, |bytes| records.push(bytes))
            .unwrap()
            .map(|(life, header)| (life, header, records))
    }

    #[test]
    fn the_newest_good_segment_is_given() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest(&dir.path().join("none")), None);
        let spool = open(dir.path(), 7);
        for number in 0..20u32 {
            // Not compressible, so that there are several segments.
            let mut record = number.to_le_bytes().to_vec();
            record.extend(
                (0..1000u32).map(|n| (n.wrapping_mul(2_654_435_761).rotate_left(number) >> 13) as u8),
            );
            spool.append(&record, || format!("header before {number}").into_bytes()).unwrap();
        }
        spool.close().unwrap();
        drop(spool);
        let (life, header, records) = newest(dir.path()).unwrap();
        assert_eq!(life, 7);
        let number = |record: &Bytes| u32::from_le_bytes(record[..4].try_into().unwrap());
        assert_eq!(header, format!("header before {}", number(&records[0])));
        assert_eq!(number(records.last().unwrap()), 19);

        // A damaged head: the one before it.
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        names.retain(|name| name.extension().is_some_and(|e| e == "spool"));
        names.sort();
        fs::write(names.last().unwrap(), b"damaged").unwrap();
        let (_, _, earlier) = newest(dir.path()).unwrap();
        assert_eq!(number(earlier.last().unwrap()) + 1, number(&records[0]));
    }
}
