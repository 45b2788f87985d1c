//! Passing a page on.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::bytes::{hash, newline, skip_blanks};
use super::known::{Lines, NONE, What};
use super::line::{LineError, comment, first, is_open_metrics, series_end, series_of, value_of};
use super::relabel::Relabel;
use super::types::{Effect, Place, Types};
use crate::core::Core;
use crate::{Collect, Failure, FamilyDefinition, MetricType, Part, sys};

/// The longest line that is read.
const LONGEST: usize = 64 << 10;
/// A line that so many pages in a row did not have is forgotten.
const KEPT: u32 = 16;
/// After so many bad lines without a good one a page is no page.
const HOPELESS: u64 = 100;

/// A family that is to be had under a second name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The name that the page has, without `_bucket` and the like.
    pub of: String,
    /// The name to add. Where the page has it itself, the page's is passed on.
    pub name: String,
}

/// What is done with a page on its way.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rules that every series goes through, after the added labels.
    pub relabel: Vec<Relabel>,
    /// Second names.
    pub aliases: Vec<Alias>,
    /// The most samples of a page that are passed on.
    pub samples: u64,
    /// Whether times on the page are kept; else a sample has the time of the collect.
    pub timestamps: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { relabel: Vec::new(), aliases: Vec::new(), samples: 20_000, timestamps: true }
    }
}

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageStats {
    /// Bytes of the page.
    pub bytes: u64,
    /// Samples on it that could be read, dropped ones included.
    pub scraped: u64,
    /// Samples passed on.
    pub samples: u64,
    /// Series that were not on the pages before.
    pub new: u64,
    /// Samples that relabelling dropped.
    pub dropped: u64,
    /// Values that are NaN: said to be absent, so left out.
    pub nan: u64,
    /// Lines that can't be read: counted as `malformed`.
    pub malformed: u64,
    /// Lines that are not UTF-8: counted as `utf8`.
    pub utf8: u64,
    /// Series that stand twice, the first is passed on: counted as `duplicate`.
    pub duplicates: u64,
    /// Counters that went back, passed on: counted as `reset`.
    pub resets: u64,
    /// Families whose type is another than before; the first stays: counted as `type-changed`.
    pub types_changed: u64,
    /// Samples whose family the host would not have: counted as `refused`.
    pub refused: u64,
    /// Samples beyond [`Options::samples`]: counted as `too-many`.
    pub too_many: u64,
}

/// Lets the reader of a page see values on their way: of the series that it asks for, as the page has them, whatever
/// relabelling does.
pub trait Watch {
    /// Asked once for each new series. A number makes [`Self::value`] be called with it on every page that has the
    /// series; keep it good as long as the [`Passthrough`].
    fn slot(&mut self, name: &str, labels: &[(String, String)]) -> Option<u32>;

    /// The series' value on this page.
    fn value(&mut self, slot: u32, value: f64);
}

struct Nobody;

impl Watch for Nobody {
    fn slot(&mut self, _: &str, _: &[(String, String)]) -> Option<u32> {
        None
    }

    fn value(&mut self, _: u32, _: f64) {}
}

/// Passes on the pages of one exporter; see the module. One for each page that is read: it remembers the last ones.
#[derive(Default)]
pub struct Passthrough {
    options: Options,
    lines: Lines,
    types: Types,
    page: u32,
    /// Of the labels that were added last.
    added: u64,
    /// Aliases that the page has as its own.
    real: HashSet<String>,
    core: Option<Rc<RefCell<Core>>>,
}

impl Passthrough {
    /// Nothing seen yet.
    pub fn new(options: Options) -> Self {
        let mut pass = Self::default();
        pass.options = options;
        pass
    }

    /// Passes a page on. `added` labels join every series that has no label of that name. Bad lines are counted and
    /// said with [`Collect::fail`], once a reason.
    ///
    /// # Errors
    /// `malformed`, where nothing on it is a sample, but something should have been.
    pub fn page(
        &mut self,
        collect: &mut Collect<'_>,
        body: &[u8],
        added: &[(&str, &str)],
    ) -> Result<PageStats, Failure> {
        self.watched(collect, body, added, &mut Nobody)
    }

    /// As [`Self::page`], with a look at values on their way.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub fn watched(
        &mut self,
        collect: &mut Collect<'_>,
        body: &[u8],
        added: &[(&str, &str)],
        watch: &mut dyn Watch,
    ) -> Result<PageStats, Failure> {
        self.begin(collect, added);
        let mut core = collect.core.borrow_mut();
        let mut reading = Reading {
            pass: self,
            core: &mut core,
            added,
            watch,
            open_metrics: is_open_metrics(body),
            stats: PageStats { bytes: body.len() as u64, ..PageStats::default() },
            trouble: Trouble::default(),
            stale_comments: false,
        };
        let hopeless = reading.run(body);
        let Reading { stats, trouble, stale_comments, .. } = reading;
        self.end(&mut core, &stats, stale_comments);
        drop(core);
        let nothing = stats.scraped == 0 && stats.malformed + stats.utf8 > 0;
        trouble.say(&stats, nothing);
        if hopeless || nothing {
            let start: String =
                String::from_utf8_lossy(body.get(..200).unwrap_or(body)).chars().take(80).collect();
            return Err(Failure::new(
                "malformed",
                format!("the answer is no page of metrics, it begins with {:?}", start.trim()),
            ));
        }
        Ok(stats)
    }

    fn begin(&mut self, collect: &Collect<'_>, added: &[(&str, &str)]) {
        let sum = added.iter().fold(1, |sum, (name, value)| {
            hash(name.as_bytes()).rotate_left(7) ^ hash(value.as_bytes()).wrapping_add(sum).rotate_left(13)
        });
        if self.core.is_none() {
            self.core = Some(collect.core.clone());
        }
        if sum != self.added {
            self.added = sum;
            let mut core = collect.core.borrow_mut();
            self.lines.retain(|_| false, |what| unpin(&mut core, what));
        }
        self.page += 1;
        self.lines.begin();
    }

    fn end(&mut self, core: &mut Core, stats: &PageStats, stale_comments: bool) {
        let page = self.page;
        // A page whose series come and go must not grow what is remembered.
        let stood = stats.scraped + stats.too_many;
        let crowded = self.lines.len() as u64 > stood * 2 + 10_000;
        let age = if crowded { 0 } else { KEPT };
        if crowded || stale_comments || page.is_multiple_of(KEPT) {
            self.lines.retain(
                |known| {
                    page.wrapping_sub(known.seen) <= age
                        && !(stale_comments && matches!(known.what, What::Comment))
                },
                |what| unpin(core, what),
            );
        }
    }
}

impl Drop for Passthrough {
    fn drop(&mut self) {
        if let Some(core) = self.core.take()
            && let Ok(mut core) = core.try_borrow_mut()
        {
            self.lines.retain(|_| false, |what| unpin(&mut core, what));
        }
    }
}

fn unpin(core: &mut Core, what: What) {
    if let What::Series { index, also, .. } = what {
        core.unpin(index);
        if also != NONE {
            core.unpin(also);
        }
    }
}

/// The first of each kind that went wrong on a page.
#[derive(Default)]
struct Trouble(HashMap<&'static str, String>);

impl Trouble {
    #[cold]
    fn add(&mut self, reason: &'static str, what: impl FnOnce() -> String) {
        self.0.entry(reason).or_insert_with(what);
    }

    fn say(mut self, stats: &PageStats, nothing: bool) {
        for (reason, count, what) in [
            ("malformed", if nothing { 0 } else { stats.malformed }, "lines that can't be read"),
            ("utf8", if nothing { 0 } else { stats.utf8 }, "lines that are not UTF-8"),
            ("duplicate", stats.duplicates, "series that stand twice on the page"),
            ("reset", stats.resets, "counters that went back"),
            ("type-changed", stats.types_changed, "families with another type than before"),
            ("refused", stats.refused, "samples of families that the host would not have"),
            ("too-many", stats.too_many, "samples more than are passed on"),
        ] {
            if count > 0 {
                let first = self.0.remove(reason).unwrap_or_default();
                sys::fail(reason, &format!("{count} {what}; the first: {first}"));
            }
        }
    }
}

/// One page under way.
struct Reading<'a> {
    pass: &'a mut Passthrough,
    core: &'a mut Core,
    added: &'a [(&'a str, &'a str)],
    watch: &'a mut dyn Watch,
    open_metrics: bool,
    stats: PageStats,
    trouble: Trouble,
    stale_comments: bool,
}

impl Reading<'_> {
    /// Reads all of it. `true`: it was given up.
    fn run(&mut self, body: &[u8]) -> bool {
        let mut rest = body;
        while !rest.is_empty() {
            let used = match self.pass.lines.expected(rest) {
                Some(index) => self.known(index, rest),
                None => self.unknown(rest),
            };
            rest = rest.get(used..).unwrap_or_default();
            if self.stats.scraped == 0 && self.stats.malformed + self.stats.utf8 >= HOPELESS {
                return true;
            }
        }
        false
    }

    /// A line that stands where it stood. Gives its length with the newline.
    #[inline]
    fn known(&mut self, index: u32, rest: &[u8]) -> usize {
        let page = self.pass.page;
        let Some(known) = self.pass.lines.get(index) else { return rest.len() };
        let (len, comment) = (known.raw.len(), matches!(known.what, What::Comment));
        if comment {
            known.seen = page;
            return len + 1;
        }
        let after = rest.get(len..).unwrap_or_default();
        let (value, whole) = first(after);
        if whole {
            self.value(index, value);
        } else {
            self.truncated(rest);
        }
        len + value.len() + usize::from(whole)
    }

    fn truncated(&mut self, line: &[u8]) {
        self.bad(LineError::Truncated, line);
    }

    /// A line that is new or stands elsewhere than before. Gives its length with the newline.
    fn unknown(&mut self, rest: &[u8]) -> usize {
        let (line, whole) = first(rest);
        let used = line.len() + usize::from(whole);
        let content = skip_blanks(line);
        match content {
            [] | [b'\r'] => {}
            [b'#', ..] => self.comment(line),
            _ if !whole => self.truncated(line),
            _ if line.len() > LONGEST => self.bad(LineError::TooLong, line),
            _ => match series_end(line) {
                Ok(end) => {
                    let (raw, value) = line.split_at_checked(end).unwrap_or((line, &[]));
                    let index = match self.pass.lines.find(raw) {
                        Some(index) => Ok(index),
                        None => self.add(raw),
                    };
                    match index {
                        Ok(index) => self.value(index, value),
                        Err(error) => self.bad(error, line),
                    }
                }
                Err(error) => self.bad(error, line),
            },
        }
        used
    }

    #[cold]
    fn bad(&mut self, error: LineError, line: &[u8]) {
        let (count, reason) = match error {
            LineError::Utf8 => (&mut self.stats.utf8, "utf8"),
            _ => (&mut self.stats.malformed, "malformed"),
        };
        *count += 1;
        self.trouble.add(reason, || format!("{error}: {:?}", start_of(line)));
    }

    fn comment(&mut self, line: &[u8]) {
        if line.len() > LONGEST {
            return;
        }
        let page = self.pass.page;
        if let Some(index) = self.pass.lines.find(line) {
            if let Some(known) = self.pass.lines.get(index) {
                known.seen = page;
            }
            return;
        }
        let Ok(text) = std::str::from_utf8(line) else { return self.bad(LineError::Utf8, line) };
        match self.pass.types.comment(&comment(text)) {
            Effect::Taken => {}
            Effect::Replaced => self.stale_comments = true,
            Effect::Clash { family } => {
                self.stats.types_changed += 1;
                self.trouble.add("type-changed", || format!("{family}: {:?}", start_of(line)));
                // Not remembered: it is to be counted on every page.
                return;
            }
        }
        let index = self.pass.lines.add(line, What::Comment, NONE);
        if let Some(known) = self.pass.lines.get(index) {
            known.seen = page;
        }
    }

    /// A value of a known series.
    #[inline]
    fn value(&mut self, index: u32, rest: &[u8]) {
        let page = self.pass.page;
        let (value, time) = match value_of(rest, self.open_metrics) {
            Ok(read) => read,
            Err(error) => return self.bad_value(index, error, rest),
        };
        let Some(known) = self.pass.lines.get(index) else { return };
        let again = known.seen == page && time.is_none();
        known.seen = page;
        self.stats.scraped += 1;
        if known.slot != NONE && !again && !value.is_nan() {
            self.watch.value(known.slot, value);
        }
        match known.what {
            What::Series { index: series, also, grows } => {
                if again || (time.is_none() && self.core.is_set(series)) {
                    self.stats.duplicates += 1;
                    self.trouble.add("duplicate", || start_of(&known.raw));
                    return;
                }
                if value.is_nan() {
                    self.stats.nan += 1;
                    return;
                }
                if self.stats.samples >= self.pass.options.samples {
                    self.stats.too_many += 1;
                    self.trouble.add("too-many", || start_of(&known.raw));
                    return;
                }
                if grows && value < known.last {
                    self.stats.resets += 1;
                    self.trouble
                        .add("reset", || format!("{} from {} to {value}", start_of(&known.raw), known.last));
                }
                known.last = value;
                self.stats.samples += 1;
                let time = time.filter(|_| self.pass.options.timestamps);
                self.set(series, value, time);
                if also != NONE && !self.core.is_set(also) {
                    self.set(also, value, time);
                }
            }
            What::Dropped => self.stats.dropped += 1,
            What::Refused => {
                self.stats.refused += 1;
                self.trouble.add("refused", || start_of(&known.raw));
            }
            What::Comment => {}
        }
    }

    #[inline]
    fn set(&mut self, series: u32, value: f64, time: Option<i64>) {
        match time {
            None => self.core.set(series, value),
            Some(time) => self.core.set_at(series, value, u64::try_from(time).unwrap_or(0)),
        }
    }

    #[cold]
    fn bad_value(&mut self, index: u32, error: LineError, rest: &[u8]) {
        let mut line = self.pass.lines.get(index).map(|known| known.raw.to_vec()).unwrap_or_default();
        line.extend_from_slice(rest.get(..100).unwrap_or(rest));
        self.bad(error, &line);
    }

    /// A series that was not there before.
    fn add(&mut self, raw: &[u8]) -> Result<u32, LineError> {
        let text = std::str::from_utf8(raw).map_err(|_| LineError::Utf8)?;
        let (name, labels) = series_of(text)?;
        let mut labels: Vec<(String, String)> =
            labels.into_iter().map(|(n, v)| (n.to_owned(), v.into_owned())).collect();
        let slot = self.watch.slot(name, &labels).unwrap_or(NONE);
        let quantile = labels.iter().any(|(n, _)| n == "quantile");
        let place = self.pass.types.place(name, quantile).ok_or(LineError::Name)?;
        self.stats.new += 1;
        let what = match self.relabel(name, &mut labels, place) {
            Some(place) => self.register(&place, &mut labels),
            None => What::Dropped,
        };
        Ok(self.pass.lines.add(raw, what, slot))
    }

    /// Adds labels and applies the rules. None: dropped.
    fn relabel(&self, name: &str, labels: &mut Vec<(String, String)>, mut place: Place) -> Option<Place> {
        labels.retain(|(_, value)| !value.is_empty());
        for (added, value) in self.added {
            if !value.is_empty() && !labels.iter().any(|(n, _)| n == added) {
                labels.push(((*added).to_owned(), (*value).to_owned()));
            }
        }
        let rules = &self.pass.options.relabel;
        if rules.is_empty() {
            return Some(place);
        }
        labels.push(("__name__".to_owned(), name.to_owned()));
        if !Relabel::apply_all(rules, labels) {
            return None;
        }
        let at = labels.iter().position(|(n, _)| n == "__name__")?;
        let (_, new) = labels.swap_remove(at);
        labels.retain(|(n, _)| !n.starts_with("__"));
        if new != name {
            let suffix = suffix_of(place.part);
            match new.strip_suffix(suffix) {
                Some(family) => family.clone_into(&mut place.family),
                None => {
                    place.family = new;
                    place.metric_type = MetricType::Unknown;
                    place.part = Part::Value;
                }
            }
        }
        Some(place)
    }

    fn register(&mut self, place: &Place, labels: &mut [(String, String)]) -> What {
        labels.sort_unstable();
        let Some(family) = self.family(&place.family, place) else { return What::Refused };
        let key = |labels: &[(String, String)], core: &mut Core, family| {
            let index =
                core.find(family, place.part, labels.iter().flat_map(|(n, v)| [n.as_str(), v.as_str()]));
            core.pin(index);
            index
        };
        let index = key(labels, self.core, family);
        let aliases = &self.pass.options.aliases;
        let alias = aliases.iter().find(|a| a.of == place.family && !self.pass.real.contains(&a.name));
        let also = alias.map(|a| a.name.clone()).and_then(|name| self.family(&name, place));
        if aliases_name(&self.pass.options.aliases, &place.family) {
            self.page_has(&place.family);
        }
        let also = also.map_or(NONE, |family| key(labels, self.core, family));
        let grows = matches!(place.part, Part::Bucket | Part::Count)
            || (place.part == Part::Value && place.metric_type == MetricType::Counter);
        What::Series { index, also, grows }
    }

    /// The page has a family under a name that is an alias: the page's counts.
    fn page_has(&mut self, name: &str) {
        if !self.pass.real.insert(name.to_owned()) {
            return;
        }
        let core = &mut *self.core;
        let of: Vec<&str> =
            self.pass.options.aliases.iter().filter(|a| a.name == name).map(|a| a.of.as_str()).collect();
        self.pass.lines.retain(
            |known| {
                let What::Series { also, .. } = &mut known.what else { return true };
                let named =
                    std::str::from_utf8(&known.raw).is_ok_and(|raw| of.iter().any(|o| raw.starts_with(o)));
                if named && *also != NONE {
                    core.unpin(*also);
                    *also = NONE;
                }
                true
            },
            |_| {},
        );
    }

    fn family(&mut self, name: &str, place: &Place) -> Option<u32> {
        let definition =
            FamilyDefinition { name, metric_type: place.metric_type, unit: &place.unit, help: &place.help };
        match self.core.declare(&definition) {
            Ok((index, true)) => Some(index),
            Ok((index, false)) if single(place.metric_type) && self.core.is_single(index) => {
                self.stats.types_changed += 1;
                self.trouble.add("type-changed", || format!("{name} has another type on another page"));
                Some(index)
            }
            Ok(_) => {
                self.trouble.add("refused", || format!("{name} has another type on another page"));
                None
            }
            Err(error) => {
                self.trouble.add("refused", || format!("{name}: {error}"));
                None
            }
        }
    }
}

fn aliases_name(aliases: &[Alias], name: &str) -> bool {
    aliases.iter().any(|a| a.name == name)
}

/// Whether a series of that type is one line under the family's own name.
const fn single(metric_type: MetricType) -> bool {
    !matches!(metric_type, MetricType::Histogram | MetricType::Summary)
}

const fn suffix_of(part: Part) -> &'static str {
    match part {
        Part::Value | Part::Quantile => "",
        Part::Bucket => "_bucket",
        Part::Sum => "_sum",
        Part::Count => "_count",
    }
}

fn start_of(text: &[u8]) -> String {
    let text = text.get(..newline(text).unwrap_or(text.len())).unwrap_or(text);
    String::from_utf8_lossy(text.get(..200).unwrap_or(text)).chars().take(120).collect()
}
