use super::*;
use proptest::prelude::*;

fn readings(limits: Limits) -> Readings {
    let mut readings = Readings::new(1, limits);
    let gauge = |name: &str| Declared {
        name: name.to_owned(),
        metric_type: MetricType::Gauge,
        unit: String::new(),
        help: String::new(),
        label_names: Vec::new(),
    };
    readings.describe(vec![gauge("a"), gauge("b")]).unwrap();
    readings
}

fn series(name: &str) -> Asked {
    Asked { family: 0, part: Part::Value, labels: vec![("name".to_owned(), name.to_owned())] }
}

/// Takes everything and checks that what it is given hangs together.
#[derive(Default)]
struct Strict {
    known: std::collections::HashSet<u32>,
    points: Vec<u32>,
}

impl SampleSink for Strict {
    fn begin(&mut self, _: u64) {
        self.known.clear();
    }
    fn family(&mut self, _: u32, _: &Family) {}
    fn series(&mut self, id: u32, family: u32, _: Part, _: &Labels) -> Result<(), String> {
        assert!(family < 2 && self.known.insert(id));
        Ok(())
    }
    fn points(&mut self, points: &[(u32, f64)]) {
        self.points = points.iter().map(|(id, _)| *id).collect();
        assert!(points.iter().all(|(id, value)| self.known.contains(id) && !value.is_nan()));
    }
    fn timed_points(&mut self, _: &[(u32, f64, i64)]) {}
    fn retire(&mut self, ids: &[u32]) {
        assert!(ids.iter().all(|id| self.known.remove(id)));
    }
    fn event(&mut self, _: v1::Event) {}
    fn fail(&mut self, _: &str, _: &str) {}
}

#[test]
fn all_or_nothing() {
    let mut r = readings(Limits { series: 2, ..Limits::default() });
    let over = r.register(vec![series("1"), series("2"), series("3")]);
    assert!(matches!(over, Err(Refused::Quota { fits: 2, .. })), "{over:?}");
    assert_eq!((r.series(), r.known.len(), r.new.len()), (0, 0, 0));
    assert_eq!(r.register(vec![series("1"), series("1"), series("2")]), Ok(vec![0, 0, 1]));
}

/// Series that come and go leave their numbers behind: before they are many, the instance is to be replaced.
#[test]
fn numbers_left_behind_wear_an_instance_out() {
    let mut r = readings(Limits::default());
    let mut rounds = 0;
    while !r.worn() {
        rounds += 1;
        assert!(rounds <= MAX_RETIRED + 1, "{} numbers for {} series", r.series.len(), r.series());
        r.begin_collect();
        let ids = r.register(vec![series(&rounds.to_string())]).unwrap();
        r.retire(&ids).unwrap();
        r.hand_over(&PluginId::new("a").unwrap(), &mut Strict::default());
    }
    assert_eq!(rounds, MAX_RETIRED + 1);
}

/// An instance is not replaced for what it holds: the next one would hold as much. It is before its numbers are used up.
#[test]
fn live_series_wear_nothing_out() {
    for (live, retired) in [
        (0, MAX_RETIRED),
        (20_000, 20_000),
        (MAX_IDS / 2 + 1, MAX_IDS / 4 - 1),
        (MAX_IDS - 3 * MAX_RETIRED, 3 * MAX_RETIRED / 2),
        (MAX_IDS, 0),
    ] {
        let mut r = readings(Limits::default());
        r.live = live;
        let entry = || SeriesEntry { key: 0, pushed: 0, last_ms: None, life: Life::Live };
        r.series.resize_with(live + retired, entry);
        assert!(!r.worn(), "{retired} retired beside {live}");
        if r.series.len() < MAX_IDS {
            r.series.push(entry());
            assert!(r.worn(), "{} retired beside {live}", retired + 1);
        }
    }
}

/// The last number is given; then what is new is refused, and what is known is not.
#[test]
fn numbers_end() {
    let mut r = readings(Limits::default());
    let used = || SeriesEntry { key: 0, pushed: 0, last_ms: None, life: Life::Retired };
    r.series.resize_with(MAX_IDS - 1, used);
    let last = MAX_IDS as u32 - 1;
    assert_eq!(r.register(vec![series("last")]), Ok(vec![last]));
    let over = r.register(vec![series("last"), series("new")]);
    let no_number = |refused: &Refused| matches!(refused, Refused::Quota { fits: 1, message } if message.contains("no number left"));
    assert!(over.as_ref().is_err_and(no_number), "{over:?}");
    assert_eq!(r.register(vec![series("last")]), Ok(vec![last]));
}

#[test]
fn times_of_a_series_ascend() {
    let mut r = readings(Limits::default());
    let id = r.register(vec![series("1")]).unwrap()[0];
    r.begin_collect();
    assert!(r.push_timed([(id, 1.0, 5), (id, 1.0, 6)].into_iter(), 10).is_ok());
    assert!(r.push_timed([(id, 1.0, 6)].into_iter(), 10).is_err());
    assert!(r.push([(id, 1.0)].into_iter()).is_err());
    assert!(r.push_timed([(id, 1.0, 0)].into_iter(), 10).is_err());
    assert_eq!(r.hand_over(&PluginId::new("p").unwrap(), &mut Strict::default()), 2);
    assert!(matches!(r.push([(id, 1.0)].into_iter()), Err(Refused::Other(_))));
}

proptest! {
    /// Whatever a guest does, in whatever order: the sink sees only what hangs together, and the tables stay in step.
    #[test]
    fn the_sink_sees_only_what_hangs_together(
        steps in proptest::collection::vec((0u8..5, 0u32..12, prop::bool::ANY), 1..80),
    ) {
        let mut r = readings(Limits { series: 6, samples: 10, ..Limits::default() });
        let (plugin, mut sink) = (PluginId::new("p").unwrap(), Strict::default());
        r.begin_collect();
        for (step, number, flag) in steps {
            match step {
                0 => drop(r.register(vec![series(&number.to_string())])),
                1 => drop(r.register(vec![series(&number.to_string()), series("x"), Asked { family: number, ..series("") }])),
                2 => drop(r.push([(number, if flag { f64::NAN } else { 1.0 })].into_iter())),
                3 => drop(r.retire(&[number])),
                _ => {
                    sink.points.clear();
                    r.hand_over(&plugin, &mut sink);
                    let mut once = sink.points.clone();
                    once.sort_unstable();
                    once.dedup();
                    prop_assert_eq!(once.len(), sink.points.len(), "a series stands twice");
                    r.begin_collect();
                }
            }
            prop_assert!(r.series() <= 6);
            prop_assert_eq!(r.series(), r.known.len());
            prop_assert_eq!(r.series(), r.series.iter().filter(|e| e.life != Life::Retired).count());
        }
    }
}
