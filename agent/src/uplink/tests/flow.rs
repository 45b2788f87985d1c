//! What goes up: order, definitions, windows, replay, loss of a connection, shutdown.

use picket_proto::spool::v1 as spool;
use picket_proto::v1::downlink_message::Message as Down;

use super::aggregator::Behaviour;
use super::*;

#[tokio::test]
async fn records_arrive_in_order_and_leave_the_spool_when_acknowledged() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let node = Node::start(&aggregator);
    for n in 1..=20 {
        node.append_simple(n).await;
    }
    aggregator.batches(0, 20).await;
    node.pending(0).await;
    aggregator.look(0, |log| {
        assert_eq!(log.batches, (1..=20).map(|n| (LIFE, n)).collect::<Vec<_>>());
        assert_eq!(log.samples.len(), 200);
        assert!(log.samples.iter().all(|(_, sequence, _, value)| *sequence as f64 == *value));
        assert_eq!(log.definitions.len(), 1, "definitions are sent once");
        let hello = log.hello.as_ref().unwrap();
        assert!(!hello.kernel.is_empty() && !hello.arch.is_empty() && hello.now_ms > 0);
    });
    assert_eq!(node.status.acked_sequence(), 20);
    assert_eq!((node.status.in_flight(), node.status.reconnects()), (0, 0));
    assert!(node.status.bytes_sent() > 1000 && node.status.certificate_expiry().is_some());
    assert_eq!(node.status.node().as_deref(), Some("gpu-01"));
    node.stop().await;
}

#[tokio::test]
async fn a_broken_stream_is_replayed_and_what_the_aggregator_holds_is_not_sent_again() {
    let aggregator = Aggregator::start(Behaviour { ack: false, ..Behaviour::default() }).await;
    let node = Node::start(&aggregator);
    for n in 1..=10 {
        node.append_simple(n).await;
    }
    aggregator.batches(0, 10).await;
    assert_eq!(node.spool.stats().records_pending, 10);
    // It has made six of them durable, and said nothing.
    aggregator.state.lock().unwrap().held.insert(LIFE, 6);
    aggregator.cut(0).await;
    aggregator.batches(1, 4).await;
    aggregator.look(1, |log| {
        assert_eq!(log.batches, [7, 8, 9, 10].map(|n| (LIFE, n)));
        assert_eq!(log.samples.len(), 40, "definitions of skipped records are there");
    });
    node.pending(4).await;
    aggregator.set(|b| b.ack = true);
    node.pending(0).await;
    assert_eq!(node.status.reconnects(), 1);
    node.stop().await;
}

#[tokio::test]
async fn the_window_bounds_what_is_in_flight() {
    let aggregator = Aggregator::start(Behaviour { ack: false, window: 3, ..Behaviour::default() }).await;
    let node = Node::start(&aggregator);
    for n in 1..=30 {
        node.append_simple(n).await;
    }
    aggregator.batches(0, 3).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(aggregator.look(0, |log| log.batches.len()), Some(3));
    assert_eq!(node.status.in_flight(), 3);
    aggregator.set(|b| b.ack = true);
    aggregator.batches(0, 30).await;
    node.pending(0).await;
    node.stop().await;
}

/// Lines and samples of hours wait: every sample goes before any line.
#[tokio::test]
async fn samples_that_wait_go_before_log_lines_that_wait() {
    let aggregator = Aggregator::start(Behaviour { window: 8, ..Behaviour::default() }).await;
    let node = Node::late(&aggregator, async |samples, lines| {
        for n in 1..=200 {
            append_line(lines, &format!("line {n}")).await;
        }
        for n in 1..=50 {
            append_simple(samples, n).await;
        }
    })
    .await;
    aggregator.batches(0, 250).await;
    let lines = LOG_LIFE | LIFE;
    let expected: Vec<(u64, u64)> =
        (1..=50).map(|n| (LIFE, n)).chain((1..=200).map(|n| (lines, n))).collect();
    aggregator.look(0, |log| {
        assert_eq!(log.batches, expected);
        assert_eq!((log.samples.len(), log.lines), (500, 200));
    });
    node.pending(0).await;
    node.stop().await;
}

/// An aggregator that can't keep lines, and acknowledges none, holds up no sample.
#[tokio::test]
async fn log_lines_that_are_not_acknowledged_hold_up_no_sample() {
    let aggregator =
        Aggregator::start(Behaviour { window: 8, ack_lines: false, ..Behaviour::default() }).await;
    let node = Node::late(&aggregator, async |_, lines| {
        for n in 1..=200 {
            append_line(lines, &format!("line {n}")).await;
        }
    })
    .await;
    aggregator.batches(0, 4).await;
    for n in 1..=40 {
        node.append_simple(n).await;
        // Each is acknowledged before the next is there.
        node.pending(0).await;
    }
    aggregator.look(0, |log| {
        assert_eq!(log.batches.iter().filter(|(life, _)| *life == LIFE).count(), 40);
        assert_eq!(log.lines, 4, "of a window of 8");
    });
    assert_eq!(node.lines.stats().records_pending, 200);
    aggregator.set(|b| b.ack_lines = true);
    aggregator.batches(0, 240).await;
    node.stop().await;
}

#[tokio::test]
async fn an_aggregator_that_stops_reading_costs_bounded_memory() {
    let aggregator = Aggregator::start(Behaviour { window: 4096, ..Behaviour::default() }).await;
    let node = Node::start(&aggregator);
    node.append_simple(1).await;
    node.pending(0).await;
    aggregator.set(|b| b.read = false);
    // 40 MB in all; the event's text does not compress.
    let mut noise = 1u64;
    for n in 2..=160 {
        let mut record = sampled(n, &[0], None);
        let message = (0..250_000)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b' ' + (noise >> 58) as u8)
            })
            .collect();
        record.events.push(v1::Event { message, ..Default::default() });
        node.append(&record, &defining(&[0])).await;
    }
    // What is on its way fills, then nothing moves any more.
    let mut last = 0;
    let mut quiet = 0;
    while quiet < 20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = node.status.in_flight();
        quiet = if now == last && now > 0 { quiet + 1 } else { 0 };
        last = now;
    }
    assert!(last < 60, "{last} batches of 250 kB have left the spool");
    aggregator.set(|b| b.read = true);
    aggregator.batches(0, 160).await;
    node.pending(0).await;
    assert_eq!(aggregator.streams(), 1, "a slow aggregator is no reason to connect again");
    node.stop().await;
}

#[tokio::test]
async fn a_peer_without_a_welcome_and_one_without_acknowledgements_are_left() {
    let aggregator = Aggregator::start(Behaviour { welcome: false, ..Behaviour::default() }).await;
    let state = tempfile::tempdir().unwrap();
    aggregator.authority.enrolled(state.path(), "gpu-01", VALID, &[]);
    let quick = Timing { welcome: Duration::from_millis(200), stall: Duration::from_millis(300), ..timing() };
    let node = Node::start_in(state, &aggregator.address, quick);
    node.error("did not say Welcome").await;
    aggregator.set(|b| (b.welcome, b.ack, b.hold) = (true, false, false));
    node.append_simple(1).await;
    node.error("acknowledged nothing").await;
    aggregator.set(|b| (b.ack, b.hold) = (true, true));
    node.pending(0).await;
    node.stop().await;
}

#[tokio::test]
async fn definitions_are_never_sent_twice_and_retired_series_not_after_a_reconnect() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let node = Node::start(&aggregator);
    let first = sampled(1, &[0, 1, 2], defining(&[0, 1, 2]).definitions);
    node.append(&first, &spool::Record::default()).await;
    let mut second = sampled(2, &[0, 1, 3], defining(&[3]).definitions);
    second.retired = vec![2];
    node.append(&second, &defining(&[0, 1, 2])).await;
    aggregator.batches(0, 2).await;
    node.pending(0).await;
    let numbers = |stream| {
        aggregator.look(stream, |log| {
            let all = log.definitions.iter();
            let mut all: Vec<u32> = all.flat_map(|(_, d)| d.series.chunks(6).map(|row| row[0])).collect();
            all.sort_unstable();
            all
        })
    };
    assert_eq!(numbers(0), Some(vec![0, 1, 2, 3]));
    assert_eq!(aggregator.look(0, |log| log.retired.clone()), Some(vec![2]));

    aggregator.cut(0).await;
    eventually("a second stream", || (aggregator.streams() == 2).then_some(())).await;
    node.append(&sampled(3, &[0, 1, 3], None), &defining(&[0, 1, 3])).await;
    aggregator.batches(1, 1).await;
    assert_eq!(numbers(1), Some(vec![0, 1, 3]));
    assert_eq!(aggregator.look(1, |log| log.samples.len()), Some(3));
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_left_out_and_counted() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let node = Node::start(&aggregator);
    node.append_simple(1).await;
    // Of a series whose definition was lost with its record.
    node.append(&sampled(2, &[0, 77], None), &defining(&[0])).await;
    // Not a record at all, and one whose columns don't fit together.
    node.spool.append(b"\xff\xff\xff", Vec::new).unwrap().durable().await.unwrap();
    let mut crooked = sampled(4, &[0, 1], None);
    crooked.blocks[0].values.pop();
    node.append(&crooked, &defining(&[0])).await;
    node.append_simple(5).await;
    aggregator.batches(0, 3).await;
    node.pending(0).await;
    aggregator.look(0, |log| {
        assert_eq!(log.batches, [1, 2, 5].map(|n| (LIFE, n)));
        assert_eq!(log.samples.len(), 21);
    });
    assert_eq!((node.status.undefined_samples(), node.status.unsendable_records()), (1, 2));
    assert_eq!(aggregator.streams(), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_record_that_the_aggregator_cannot_take_does_not_hold_up_the_others() {
    let aggregator = Aggregator::start(Behaviour { poison: 3, window: 1, ..Behaviour::default() }).await;
    let node = Node::start(&aggregator);
    for n in 1..=5 {
        node.append_simple(n).await;
    }
    node.pending(0).await;
    assert_eq!(aggregator.streams(), 4);
    assert_eq!(aggregator.look(3, |log| log.batches.clone()), Some(vec![(LIFE, 4), (LIFE, 5)]));
    assert_eq!(node.status.unsendable_records(), 1);
    node.stop().await;
}

#[tokio::test]
async fn samples_with_times_of_their_own_and_events_travel() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let node = Node::start(&aggregator);
    let mut record = sampled(1, &[0, 1], defining(&[0, 1]).definitions);
    let mut late = record.blocks[0].clone();
    late.time_deltas_ms = vec![-1000, 5];
    record.blocks.push(late);
    record.events.push(v1::Event { kind: "xid".into(), key: "k".into(), ..Default::default() });
    node.append(&record, &spool::Record::default()).await;
    node.append(&spool::Record { events: record.events.clone(), ..Default::default() }, &defining(&[0, 1]))
        .await;
    aggregator.batches(0, 2).await;
    node.pending(0).await;
    aggregator.look(0, |log| {
        assert_eq!(log.samples.len(), 4);
        assert_eq!(log.events.iter().map(|e| e.kind.as_str()).collect::<Vec<_>>(), ["xid", "xid"]);
    });
    node.stop().await;
}

#[tokio::test]
async fn shutdown_waits_for_what_is_durable() {
    let aggregator = Aggregator::start(Behaviour { window: 2, ..Behaviour::default() }).await;
    let node = Node::start(&aggregator);
    node.connected().await;
    for n in 1..=50 {
        node.append_simple(n).await;
    }
    let spool = node.spool.clone();
    node.stop().await;
    assert_eq!(spool.stats().records_pending, 0);
    assert_eq!(aggregator.look(0, |log| log.batches.len()), Some(50));
}

#[tokio::test]
async fn shutdown_ends_though_nobody_acknowledges_or_answers() {
    let aggregator = Aggregator::start(Behaviour { ack: false, ..Behaviour::default() }).await;
    let state = tempfile::tempdir().unwrap();
    aggregator.authority.enrolled(state.path(), "gpu-01", VALID, &[]);
    let quick = Timing { drain: Duration::from_millis(100), ..timing() };
    let node = Node::start_in(state, &aggregator.address, quick);
    node.append_simple(1).await;
    aggregator.batches(0, 1).await;
    node.stop().await;

    let state = tempfile::tempdir().unwrap();
    aggregator.authority.enrolled(state.path(), "gpu-01", VALID, &[]);
    let node = Node::start_in(state, "localhost:1", timing());
    node.error("nothing listens").await;
    node.stop().await;
}

#[tokio::test]
async fn an_acknowledgement_of_what_was_never_sent_deletes_nothing() {
    let aggregator = Aggregator::start(Behaviour { lie: 100, hold: false, ..Behaviour::default() }).await;
    let node = Node::start(&aggregator);
    node.append_simple(1).await;
    node.error("which it was not sent").await;
    assert_eq!(node.spool.stats().records_pending, 1);
    aggregator.set(|b| (b.lie, b.hold) = (0, true));
    node.pending(0).await;
    node.stop().await;
}

#[tokio::test]
async fn an_aggregator_that_restarts_is_found_again() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let node = Node::start(&aggregator);
    node.append_simple(1).await;
    for stream in 0..5 {
        eventually("a stream", || (aggregator.streams() == stream + 1).then_some(())).await;
        node.connected().await;
        let shutdown = v1::Goodbye { reason: "shutdown".into(), message: String::new() };
        aggregator.say(stream, Down::Goodbye(shutdown)).await;
    }
    node.append_simple(2).await;
    node.pending(0).await;
    assert_eq!(node.status.acked_sequence(), 2);
    node.stop().await;
}

#[tokio::test]
async fn records_of_an_earlier_life_come_first() {
    const EARLIER: u64 = 77;
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let state = tempfile::tempdir().unwrap();
    aggregator.authority.enrolled(state.path(), "gpu-01", VALID, &[]);
    let options = || picket_agent_spool::Options {
        dir: state.path().join("spool"),
        max_bytes: 8 << 20,
        max_age: Duration::from_secs(3600),
        segment_bytes: 1 << 20,
        queue_bytes: 1 << 20,
    };
    let all = [0, 1];
    let fill = async |spool: &Spool, value: u64| {
        let first = sampled(value, &all, defining(&all).definitions).encode_to_vec();
        spool.append(&first, Vec::new).unwrap().durable().await.unwrap();
        let second = sampled(value + 1, &all, None).encode_to_vec();
        spool.append(&second, || defining(&all).encode_to_vec()).unwrap().durable().await.unwrap();
    };
    let spool = Spool::open(options(), EARLIER).unwrap();
    fill(&spool, 10).await;
    spool.close().unwrap();
    drop(spool);
    // The folder is free once the writer's thread has ended.
    let spool = eventually("the spool's folder", || Spool::open(options(), LIFE).ok()).await;
    fill(&spool, 20).await;
    let node = Node::start_with(state, &aggregator.address, timing(), spool, None);
    aggregator.batches(0, 4).await;
    node.pending(0).await;
    aggregator.look(0, |log| {
        assert_eq!(log.batches, [(EARLIER, 1), (EARLIER, 2), (LIFE, 1), (LIFE, 2)]);
        assert_eq!(log.definitions.iter().map(|(life, _)| *life).collect::<Vec<_>>(), [EARLIER, LIFE]);
        assert_eq!(log.samples.len(), 8);
    });
    assert_eq!(node.status.acked_sequence(), 2);
    node.stop().await;
}

#[tokio::test]
async fn losses_at_the_spools_cap_are_told() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::in_memory(1 << 20, LIFE);
    let mut record = sampled(1, &[0], None);
    record.events.push(v1::Event { message: "x".repeat(20_000), ..Default::default() });
    while spool.stats().lost.get("cap").is_none_or(|lost| *lost == 0) {
        let header = || defining(&[0]).encode_to_vec();
        spool.append(&record.encode_to_vec(), header).unwrap().durable().await.unwrap();
    }
    let lost = spool.stats().lost["cap"];
    aggregator.authority.enrolled(state.path(), "gpu-01", VALID, &[]);
    let node = Node::start_with(state, &aggregator.address, timing(), spool, None);
    let told = aggregator.until("a loss", 0, |log| log.losses.first().cloned()).await;
    assert_eq!((told.reason.as_str(), told.records), ("cap", lost));
    node.pending(0).await;
    node.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_or_comes_twice_though_streams_break_all_the_time() {
    let aggregator = Aggregator::start(Behaviour { window: 5, ..Behaviour::default() }).await;
    let node = Node::start(&aggregator);
    let mut chance = 7u64;
    let mut appended = 0;
    for round in 0..25 {
        for _ in 0..8 {
            appended += 1;
            node.append_simple(appended).await;
        }
        let stream = eventually("a stream that is up", || {
            let stream = aggregator.streams().checked_sub(1)?;
            node.status.connected().then_some(stream)
        })
        .await;
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Sometimes the acknowledgements are what is lost.
        aggregator.set(|b| b.ack = chance >> 63 == 0);
        for _ in 0..(chance >> 60) {
            tokio::task::yield_now().await;
        }
        if round % 5 != 4 {
            aggregator.cut(stream).await;
            eventually("the next stream", || (aggregator.streams() > stream + 1).then_some(())).await;
        }
    }
    aggregator.set(|b| b.ack = true);
    node.pending(0).await;
    {
        let state = aggregator.state.lock().unwrap();
        let sent: usize = state.streams.iter().map(|log| log.batches.len()).sum();
        let mut accepted = Vec::new();
        for (_, sequence) in state.streams.iter().flat_map(|log| &log.batches) {
            if accepted.last().is_none_or(|last| sequence > last) {
                accepted.push(*sequence);
            }
        }
        assert_eq!(accepted, (1..=appended).collect::<Vec<_>>(), "{sent} batches were sent");
        for log in &state.streams {
            assert_eq!(log.samples.len(), log.batches.len() * 10);
        }
    }
    node.stop().await;
}
