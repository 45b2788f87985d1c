//! Lines of one stream that stand together: times, lengths, and the text in one piece.
//!
//! The two files have a form each. The write-ahead file takes what came as it is (fixed widths, written once); a chunk file
//! has differences as variable-length numbers, because zstd then has little left but the text.

use crate::log::frame::{Fields, put_i64, put_u32};

/// Lines, decoded. `ends` are offsets into `text`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Run<'a> {
    pub times: Vec<i64>,
    pub ends: Vec<u32>,
    pub text: &'a str,
}

impl<'a> Run<'a> {
    /// Times and lines in the order in which they stand.
    pub fn lines(&self) -> impl Iterator<Item = (i64, &'a str)> {
        let text = self.text;
        let mut from = 0;
        self.times.iter().zip(&self.ends).filter_map(move |(&time, &end)| {
            let line = text.get(from..end as usize);
            from = end as usize;
            Some((time, line?))
        })
    }
}

/// Appends a run in the write-ahead form.
pub fn put_plain(times: &[i64], lengths: &[u32], text: &str, out: &mut Vec<u8>) {
    put_u32(out, times.len() as u32);
    times.iter().for_each(|&time| put_i64(out, time));
    lengths.iter().for_each(|&length| put_u32(out, length));
    put_u32(out, text.len() as u32);
    out.extend_from_slice(text.as_bytes());
}

/// Reads what [`put_plain`] wrote.
pub fn take_plain<'a>(fields: &mut Fields<'a>) -> Option<Run<'a>> {
    let count = fields.u32()? as usize;
    let mut times = Fields(fields.columns(count, 8)?);
    let mut lengths = Fields(fields.columns(count, 4)?);
    let text = fields.str()?;
    let mut run = Run { times: Vec::with_capacity(count), ends: Vec::with_capacity(count), text };
    let mut end = 0u32;
    for _ in 0..count {
        run.times.push(times.i64()?);
        end = end.checked_add(lengths.u32()?)?;
        run.ends.push(end);
    }
    checked(run)
}

/// Steps over what [`put_plain`] wrote.
pub fn skip_plain(fields: &mut Fields<'_>) -> Option<()> {
    let count = fields.u32()? as usize;
    fields.columns(count, 12)?;
    fields.bytes().map(drop)
}

/// Appends a run in the form of chunk files.
pub fn put_packed<'a>(lines: impl Iterator<Item = (i64, &'a str)> + Clone, out: &mut Vec<u8>) {
    let mut last = 0i64;
    for (time, _) in lines.clone() {
        put_varint(zigzag(time.wrapping_sub(last)), out);
        last = time;
    }
    for (_, line) in lines.clone() {
        put_varint(line.len() as u64, out);
    }
    for (_, line) in lines {
        out.extend_from_slice(line.as_bytes());
    }
}

/// Reads `count` lines that [`put_packed`] wrote and nothing else.
pub fn take_packed(mut bytes: &[u8], count: usize) -> Option<Run<'_>> {
    // A line costs two bytes at least.
    if count > bytes.len() {
        return None;
    }
    let mut run = Run { times: Vec::with_capacity(count), ends: Vec::with_capacity(count), text: "" };
    let mut time = 0i64;
    for _ in 0..count {
        time = time.wrapping_add(unzigzag(varint(&mut bytes)?));
        run.times.push(time);
    }
    let mut end = 0u32;
    for _ in 0..count {
        end = end.checked_add(u32::try_from(varint(&mut bytes)?).ok()?)?;
        run.ends.push(end);
    }
    run.text = std::str::from_utf8(bytes).ok()?;
    checked(run)
}

/// The text is as long as the lines, and no line ends within a character.
fn checked(run: Run<'_>) -> Option<Run<'_>> {
    let whole = run.ends.last().map_or(0, |&end| end as usize) == run.text.len();
    (whole && run.ends.iter().all(|&end| run.text.is_char_boundary(end as usize))).then_some(run)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_forms_read_back(lines in proptest::collection::vec((any::<i64>(), ".{0,20}"), 0..40)) {
            let all = || lines.iter().map(|(time, line)| (*time, line.as_str()));
            let mut packed = Vec::new();
            put_packed(all(), &mut packed);
            let run = take_packed(&packed, lines.len()).unwrap();
            prop_assert_eq!(run.lines().collect::<Vec<_>>(), all().collect::<Vec<_>>());

            let times: Vec<i64> = lines.iter().map(|(time, _)| *time).collect();
            let lengths: Vec<u32> = lines.iter().map(|(_, line)| line.len() as u32).collect();
            let text: String = lines.iter().map(|(_, line)| line.as_str()).collect();
            let mut plain = Vec::new();
            put_plain(&times, &lengths, &text, &mut plain);
            let mut fields = Fields(&plain);
            prop_assert_eq!(take_plain(&mut fields), Some(run));
            prop_assert!(fields.0.is_empty());
            let mut fields = Fields(&plain);
            prop_assert_eq!(skip_plain(&mut fields), Some(()));
            prop_assert!(fields.0.is_empty());
        }

        #[test]
        fn foreign_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0usize..400) {
            let _ = take_packed(&bytes, count).map(|run| run.lines().count());
            let _ = take_plain(&mut Fields(&bytes)).map(|run| run.lines().count());
        }
    }
}
