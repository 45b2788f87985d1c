use super::*;
use proptest::prelude::*;

/// One block of a stream: list, values, times.
type Block = (i64, Vec<u32>, Vec<f64>, Option<Vec<i64>>);

/// Encodes and decodes the blocks as one stream and compares bit by bit. Gives the bytes of each block.
fn check(blocks: &[Block]) -> Vec<Vec<u8>> {
    let (mut encoder, mut decoder, mut columns) = (Encoder::new(), Decoder::new(), Columns::default());
    let mut all = Vec::new();
    for (time, series, values, times) in blocks {
        let mut out = vec![0xEE];
        encoder.encode(*time, series, values, times.as_deref(), &mut out).unwrap();
        decoder.decode(&out[1..], &mut columns).unwrap();
        assert_eq!(columns.timestamp_ms, *time);
        assert_eq!(&columns.series, series);
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&columns.values), bits(values));
        let timed = times.as_ref().filter(|times| !times.is_empty());
        assert_eq!(&columns.times_ms, timed.unwrap_or(&Vec::new()));
        all.push(out.split_off(1));
    }
    all
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (0..5_i32).prop_map(f64::from),
        4 => (any::<i32>(), 0..8).prop_map(|(n, k)| f64::from(n) / 10_f64.powi(k)),
        2 => any::<i32>().prop_map(|n| f64::from(n) * 0.001),
        2 => any::<f32>().prop_map(f64::from),
        2 => any::<u64>().prop_map(f64::from_bits),
        1 => prop::sample::select(vec![-0.0, f64::NAN, f64::INFINITY, f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324,
            f64::from_bits(0x7FF0_0000_0000_0001), f64::from_bits(0xFFF8_0000_DEAD_BEEF), 9_007_199_254_740_993.0]),
    ]
}

fn block() -> impl Strategy<Value = Block> {
    let series = prop_oneof![
        (0..40_u32, 0..200_u32).prop_map(|(from, count)| (from..from + count).collect::<Vec<_>>()),
        prop::collection::vec(prop_oneof![0..200_u32, 0..MAX_SERIES], 0..60),
        prop::sample::select(vec![vec![], vec![1, 2, 3], vec![3, 2, 1], vec![MAX_SERIES - 1]]),
    ];
    (any::<i64>(), series, any::<bool>()).prop_flat_map(|(time, series, timed)| {
        let count = series.len();
        let times = prop::collection::vec(prop_oneof![any::<i64>(), 0..10_000_i64], count);
        (Just(time), Just(series), prop::collection::vec(value(), count), times)
            .prop_map(move |(time, series, values, times)| (time, series, values, timed.then_some(times)))
    })
}

/// Found by the fuzzer: a few bytes that say many numbers made the reader go on through zeros.
#[test]
fn a_list_ends_with_its_bytes() {
    let mut columns = Columns::default();
    let found = Decoder::new().decode(&[0x01, 0x06, 0xa7, 0x7a, 0x06, 0x21], &mut columns);
    assert!(matches!(found, Err(ColumnsError::Truncated { .. })), "{found:?}");
    assert!(columns.series.len() < 1 << 16, "{} numbers of six bytes", columns.series.len());
}

proptest! {
    #[test]
    fn any_stream_comes_back(blocks in prop::collection::vec(block(), 1..12)) {
        check(&blocks);
    }

    #[test]
    fn foreign_bytes_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..400), format in any::<bool>()) {
        if let (true, Some(first)) = (format, bytes.first_mut()) {
            *first = FORMAT;
        }
        let _ = Decoder::new().decode(&bytes, &mut Columns::default());
    }

    #[test]
    fn damage_never_panics(
        blocks in prop::collection::vec(block(), 1..5),
        at in any::<prop::sample::Index>(), bit in 0..8, cut in any::<prop::sample::Index>(),
    ) {
        let mut all = check(&blocks);
        let (mut flipped, mut cutting, mut columns) = (Decoder::new(), Decoder::new(), Columns::default());
        let last = all.pop().unwrap();
        for bytes in &all {
            flipped.decode(bytes, &mut columns).unwrap();
            cutting.decode(bytes, &mut columns).unwrap();
        }
        let mut bytes = last.clone();
        *at.get_mut(&mut bytes) ^= 1_u8 << bit;
        if flipped.decode(&bytes, &mut columns).is_err() {
            prop_assert_eq!(flipped.decode(&last, &mut columns), Err(ColumnsError::Lost));
        } else {
            prop_assert_eq!(columns.values.len(), columns.series.len());
        }
        let _ = cutting.decode(&last[..cut.index(last.len())], &mut columns);
    }
}

#[test]
fn a_refusal_changes_nothing() {
    let (mut encoder, mut twin) = (Encoder::new(), Encoder::new());
    let (mut out, mut other) = (Vec::new(), Vec::new());
    for (series, values, times) in [
        (vec![1, 2], vec![1.0], None),
        (vec![1], vec![1.0], Some(vec![1, 2])),
        (vec![1, MAX_SERIES], vec![1.0, 2.0], None),
        (vec![0; MAX_SAMPLES + 1], vec![0.0; MAX_SAMPLES + 1], None),
    ] {
        encoder.encode(5, &series, &values, times.as_deref(), &mut out).unwrap_err();
        assert!(out.is_empty());
        encoder.encode(7, &[1, 2], &[1.5, 2.5], None, &mut out).unwrap();
        twin.encode(7, &[1, 2], &[1.5, 2.5], None, &mut other).unwrap();
        assert_eq!(out, other);
        out.clear();
        other.clear();
    }
}

#[test]
fn malformed_blocks_say_why() {
    let decode = |bytes: &[u8]| Decoder::new().decode(bytes, &mut Columns::default()).unwrap_err();
    assert_eq!(decode(&[]), ColumnsError::Empty);
    assert_eq!(decode(&[9, 1]), ColumnsError::Format { format: 9 });
    let series: Vec<u32> = (0..100).collect();
    let values: Vec<f64> = series.iter().map(|&n| f64::from(n).sqrt()).collect();
    let mut bytes = check(&[(1, series, values, None)]).remove(0);
    assert!(matches!(decode(&bytes[..300]), ColumnsError::Truncated { samples: 100, .. }));
    bytes.push(0);
    bytes.push(0);
    bytes.push(0);
    bytes.push(0);
    bytes.push(1);
    assert!(matches!(decode(&bytes), ColumnsError::Trailing { .. }));
}

#[test]
fn a_repeated_list_of_values_that_stay_is_a_few_bytes() {
    let series: Vec<u32> = (0..520).collect();
    let values: Vec<f64> = series.iter().map(|&n| f64::from(n) * 4096.0).collect();
    let blocks: Vec<Block> =
        (0..100).map(|i| (1_700_000_000_000 + i * 15_000, series.clone(), values.clone(), None)).collect();
    let sizes: Vec<usize> = check(&blocks).iter().map(Vec::len).collect();
    assert!(sizes[99] <= 6, "{sizes:?}");
}

/// The largest block there may be, and lists that don't all fit in what is remembered.
#[test]
fn the_bounds_hold() {
    let long: Vec<u32> = (0..MAX_SAMPLES as u32).collect();
    let values = vec![1.0; MAX_SAMPLES];
    let short = (3, vec![5, 6], vec![1.0, 2.0], None);
    check(&[
        short.clone(),
        (1, long.clone(), values.clone(), None),
        (2, long, values, None),
        short.clone(),
        short,
    ]);
}

/// A node like those that are measured: most series stand, counters count with noise, memory moves by pages.
#[test]
fn a_busy_node_is_small_on_the_wire() {
    const SERIES: u32 = 520;
    const TICKS: usize = 120;
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut counts: Vec<u64> = (0..SERIES).map(|_| random(1 << 30)).collect();
    let mut blocks: Vec<Block> = Vec::new();
    for tick in 0..TICKS {
        let values = counts.iter_mut().zip(0..SERIES).map(|(count, series)| match series % 10 {
            // Processor seconds, in hundredths.
            0 | 1 => {
                *count += 700 + random(200);
                *count as f64 / 100.0
            }
            // Bytes of network and disks.
            2 => {
                *count += random(3_000_000);
                *count as f64
            }
            // Memory, by pages.
            3 => {
                *count = (*count).saturating_add(random(400)).saturating_sub(200);
                *count as f64 * 4096.0
            }
            // What counts now and then; pressure in microseconds.
            4 => {
                *count += u64::from(random(4) == 0);
                *count as f64
            }
            5 if series < 60 => {
                *count += random(5000);
                *count as f64 / 1e6
            }
            // The clock, and a few floats of any kind.
            6 if series < 40 => random(1 << 52) as f64 / 1e13,
            _ => *count as f64,
        });
        let values = values.collect();
        let time = 1_700_000_000_000 + tick as i64 * 15_000 + random(3) as i64;
        blocks.push((time, (0..SERIES).collect(), values, None));
    }
    let sizes: Vec<usize> = check(&blocks).iter().map(Vec::len).collect();
    let steady: usize = sizes[10..].iter().sum();
    let each = steady as f64 / ((TICKS - 10) as f64 * f64::from(SERIES));
    let raw = SERIES as f64 * 8.0;
    println!(
        "first block {} bytes; then {each:.3} bytes a sample ({:.1} times less)",
        sizes[0],
        raw / each / f64::from(SERIES)
    );
    assert!(each < 1.0, "{each:.3} bytes a sample");
}
