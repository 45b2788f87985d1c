//! The border's codec: what is written is read again, and what comes from anybody ends in an answer or an error, within
//! bounds.

use std::time::Duration;

use picket_agent_services::always::Level;
use picket_agent_services::{Request, Response, files, http, logs, store};
use picket_proto::model::{MetricType, Part, Severity};
use proptest::prelude::*;

use super::wire::{self, Broken, HEAD, Head, Load, MAX_ORDER, NotLoaded, Order, Ready, Report};
use crate::ask::{Ask, Told};
use crate::body::World;
use crate::call::{Bounds, Call, Cost, Returned, Stopped};
use crate::points::{Ids, Points, TimedPoints, Times};
use crate::readings::{Asked, Declared, Happened, Refused};
use crate::versions::Edition;
use crate::wall::Wall;

const HOSTCALL: u64 = 8 << 20;

fn split(frame: &[u8]) -> (Head, &[u8]) {
    let (head, body) = frame.split_first_chunk::<HEAD>().unwrap();
    let head = Head::read(*head);
    assert_eq!(head.length, body.len());
    (head, body)
}

fn text() -> impl Strategy<Value = String> {
    "[a-zä\\n]{0,12}"
}

fn labels() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec((text(), text()), 0..4)
}

fn refused() -> impl Strategy<Value = Refused> {
    prop_oneof![
        (text(), any::<u32>()).prop_map(|(message, fits)| Refused::Quota { message, fits }),
        any::<u32>().prop_map(Refused::UnknownId)
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        text().prop_map(|path| Ask::Effect(Request::Files(files::Request::Read { path }))),
        (text(), prop::collection::vec(any::<u8>(), 0..40), any::<Option<u64>>()).prop_map(
            |(key, value, ttl)| Ask::Effect(Request::Store(store::Request::Set { key, value, ttl }))
        ),
        (text(), labels(), prop::collection::vec(any::<u8>(), 0..40), any::<Option<u32>>()).prop_map(
            |(url, headers, body, timeout)| {
                let request =
                    http::Request { method: "GET".to_owned(), url, headers, body, timeout, secret: None };
                Ask::Effect(Request::Http(vec![request]))
            }
        ),
        text().prop_map(|name| {
            let metric_type = MetricType::Histogram;
            Ask::Declare(vec![Declared {
                name,
                metric_type,
                unit: String::new(),
                help: String::new(),
                label_names: Vec::new(),
            }])
        }),
        (any::<u32>(), labels()).prop_map(|(family, labels)| Ask::Register(vec![Asked {
            family,
            part: Part::Bucket,
            labels
        }])),
        prop::collection::vec((any::<u32>(), -1e9..1e9), 0..30).prop_map(|p| Ask::Push(Points(p))),
        prop::collection::vec((any::<u32>(), -1e9..1e9, any::<u64>()), 0..30)
            .prop_map(|p| Ask::PushTimed(TimedPoints(p))),
        prop::collection::vec(any::<u32>(), 0..30).prop_map(|ids| Ask::Retire(Ids(ids))),
        (text(), labels(), any::<Option<u64>>()).prop_map(|(kind, attributes, timestamp)| {
            Ask::Emit(vec![Happened {
                kind,
                severity: Severity::Critical,
                subject: (String::new(), String::new()),
                message: String::new(),
                attributes,
                key: String::new(),
                clear: true,
                timestamp,
            }])
        }),
        (text(), text()).prop_map(|(reason, message)| Ask::Fail { reason, message }),
        text().prop_map(|line| Ask::Log(Level::Warn, line)),
        (labels(), prop::collection::vec((any::<u64>(), text()), 0..5)).prop_map(|(labels, lines)| {
            let (times, lines) = lines.into_iter().unzip();
            Ask::EmitLogs(vec![(labels, Times(times), lines)])
        }),
        any::<u32>().prop_map(|most| Ask::ReadLogs { wanted: logs::Wanted::default(), most }),
    ]
}

fn stopped() -> impl Strategy<Value = Stopped> {
    prop_oneof![
        any::<u64>().prop_map(|ms| Stopped::TimedOut(Duration::from_millis(ms))),
        (any::<u64>(), any::<u64>()).prop_map(|(wanted, limit)| Stopped::OverMemory { wanted, limit }),
        text().prop_map(Stopped::Trapped),
        Just(Stopped::Hostcall),
    ]
}

fn report() -> impl Strategy<Value = Report> {
    prop_oneof![
        text().prop_map(|version| Report::Ready(Ready { version, wall: Wall::default() })),
        text().prop_map(|why| Report::Loaded(Err(NotLoaded::Stale(why)))),
        stopped().prop_map(|s| Report::Made(Err(s))),
        ask().prop_map(Report::Ask),
        (stopped(), any::<u64>()).prop_map(|(s, memory)| {
            Report::Done(Err(s), Cost { guest_time: Duration::from_nanos(memory), memory })
        }),
        text().prop_map(|t| Report::Done(Ok(Returned::Text(t)), Cost::default())),
        Just(Report::Ended),
    ]
}

fn order() -> impl Strategy<Value = Order> {
    let bounds =
        Bounds { memory: 1, guest_time: Duration::MAX, call_time: Duration::ZERO, hostcall_bytes: u64::MAX };
    prop_oneof![
        any::<u64>().prop_map(move |length| {
            let capabilities = vec!["files".to_owned(), "store".to_owned()];
            Order::Load(Load {
                capabilities,
                world: World::Source { edition: Edition::Former, controllable: true },
                bounds: bounds.clone(),
                length,
            })
        }),
        any::<u64>().prop_map(|seat| Order::Make { seat }),
        text().prop_map(|settings| Order::Enter(Call::Configure(settings))),
        prop::collection::vec(any::<u8>(), 0..100).prop_map(|bytes| {
            Order::Tell(Told::Effect(Response::Files(Ok(files::Answer::Bytes(bytes)))))
        }),
        refused().prop_map(|r| Order::Tell(Told::Numbers(Err(r)))),
        Just(Order::End),
    ]
}

proptest! {
    #[test]
    fn what_a_worker_says_is_read_again(said in report(), number: u64) {
        let frame = said.encode(number).unwrap();
        let (head, body) = split(&frame);
        prop_assert_eq!(head.number, number);
        prop_assert_eq!(Report::decode(head.kind, body, wire::most(head.kind, HOSTCALL)), Ok(said));
    }

    #[test]
    fn what_the_agent_says_is_read_again(said in order(), number: u64) {
        let frame = said.encode(number).unwrap();
        let (head, body) = split(&frame);
        prop_assert_eq!(head.number, number);
        prop_assert_eq!(Order::decode(head.kind, body), Ok(said));
    }

    #[test]
    fn anything_is_an_answer_or_an_error(kind in 0u8..9, body in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Report::decode(kind, &body, wire::most(kind, HOSTCALL));
        let _ = Order::decode(kind, &body);
    }

    /// Bytes that were right but for one.
    #[test]
    fn one_wrong_byte(said in report(), at: prop::sample::Index, by in 1u8..) {
        let frame = said.encode(1).unwrap();
        let (head, body) = split(&frame);
        let mut body = body.to_vec();
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] ^= by;
        }
        let _ = Report::decode(head.kind, &body, wire::most(head.kind, HOSTCALL));
    }

    #[test]
    fn cut_or_longer_is_refused(said in report(), cut: prop::sample::Index, more in 1usize..5) {
        let frame = said.encode(1).unwrap();
        let (head, body) = split(&frame);
        let most = wire::most(head.kind, HOSTCALL);
        if !body.is_empty() {
            prop_assert!(Report::decode(head.kind, &body[..cut.index(body.len())], most).is_err());
        }
        let longer = [body, &vec![0; more]].concat();
        prop_assert!(Report::decode(head.kind, &longer, most).is_err());
    }
}

/// A list of a billion empty families, or of as many as there are bytes: it is not even begun to be kept.
#[test]
fn many_small_parts_are_not_taken() {
    let most = wire::most(wire::ASK, HOSTCALL);
    // `Ask::Declare`, then the list's length; a family with empty texts is six zeros.
    for length in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0x80, 0x80, 0x80, 0x01]] {
        let mut body = vec![1];
        body.extend_from_slice(length);
        body.resize(most, 0);
        assert!(matches!(Report::decode(wire::ASK, &body, most), Err(Broken::Body(_))));
    }
    // What a plugin may well say in one host call is taken: twenty thousand series of twelve labels.
    let labels: Vec<_> = (0..12).map(|i| (format!("n{i}"), String::new())).collect();
    let list = vec![Asked { family: 1999, part: Part::Value, labels }; 10_000];
    let frame = Report::Ask(Ask::Register(list)).encode(1).unwrap();
    let (head, body) = split(&frame);
    assert!(Report::decode(head.kind, body, most).is_ok());
    // And two thousand points are little more than their twelve bytes each.
    // Bytes are one part, whatever they are: a body as long as a host call may be.
    let body = vec![0xa5; HOSTCALL as usize];
    let set = store::Request::Set { key: "k".to_owned(), value: body, ttl: None };
    let frame = Report::Ask(Ask::Effect(Request::Store(set))).encode(1).unwrap();
    let (head, body) = split(&frame);
    assert!(Report::decode(head.kind, body, most).is_ok());
    let frame = Report::Ask(Ask::Push(Points(vec![(7, 1.5); 2000]))).encode(1).unwrap();
    assert!(frame.len() < 2000 * 12 + 32, "{}", frame.len());
}

#[test]
fn lengths_are_bounded_before_they_are_read() {
    for kind in [wire::READY, wire::LOADED, wire::MADE, wire::ENDED, 0, 99] {
        assert_eq!(wire::most(kind, HOSTCALL), wire::MAX_SMALL);
    }
    assert!(wire::most(wire::ASK, HOSTCALL) < 9 << 20);
    let body = vec![0; wire::MAX_SMALL + 1];
    let refused = Report::decode(wire::MADE, &body, wire::MAX_SMALL);
    assert_eq!(refused, Err(Broken::Length { length: body.len(), most: wire::MAX_SMALL }));
    let large = Order::Tell(Told::Effect(Response::Files(Ok(files::Answer::Bytes(vec![0; MAX_ORDER])))));
    assert_eq!(large.encode(1), None);
}
