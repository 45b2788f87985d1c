//! Path patterns: absolute, segment by segment. `*` stands for any run of characters within a segment, `**` as a whole
//! segment for any number of segments, none included. A pattern without a star is that one path.
//!
//! Matching is lexical, on a path without `.`, `..` and empty segments; what a path leads to on disk is [`crate::files`]'
//! matter. The matcher goes back to the last star alone, so its cost is bounded by pattern times path.

use std::path::{Path, PathBuf};

/// The longest path or pattern that is looked at, in bytes (Linux's `PATH_MAX`).
const MAX_PATH: usize = 4096;

/// Why a pattern or a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} is no usable path: {why}")]
pub struct InvalidPattern {
    path: String,
    why: &'static str,
}

/// One pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<String>,
    root: PathBuf,
}

impl PathPattern {
    /// # Errors
    /// [`InvalidPattern`]: not absolute, or with `.`, `..`, a NUL, or a `**` beside other characters.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        let segments: Vec<String> = segments(text)?.into_iter().map(str::to_owned).collect();
        if segments.iter().any(|s| s != "**" && s.contains("**")) {
            return Err(InvalidPattern {
                path: text.to_owned(),
                why: "`**` must stand alone between slashes",
            });
        }
        let literal = segments.iter().take_while(|s| !s.contains('*')).count();
        // A pattern without stars names one file; the folder that it lies in is the root.
        let depth = if literal == segments.len() { literal.saturating_sub(1) } else { literal };
        let mut root = PathBuf::from("/");
        root.extend(segments.iter().take(depth));
        Ok(Self { segments, root })
    }

    /// The longest folder that holds everything the pattern can match.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How many segments below the root a match has; none where `**` leaves that open.
    pub(crate) fn depth(&self) -> Option<usize> {
        let below = self.segments.len().saturating_sub(self.root.components().count().saturating_sub(1));
        (!self.segments.iter().any(|s| s == "**")).then_some(below)
    }

    /// Whether it matches this path.
    pub(crate) fn allows(&self, path: &str) -> bool {
        segments(path).is_ok_and(|path| self.matches(&path))
    }

    fn matches(&self, path: &[&str]) -> bool {
        wild(&self.segments, path, |p| p == "**", |p, s| segment_covers(p, s))
    }
}

/// The patterns of a grant.
#[derive(Debug, Clone, Default)]
pub struct PathSet {
    patterns: Vec<PathPattern>,
}

impl PathSet {
    /// # Errors
    /// [`InvalidPattern`] of the first bad one.
    pub fn new(texts: &[String]) -> Result<Self, InvalidPattern> {
        Ok(Self { patterns: texts.iter().map(|t| PathPattern::new(t)).collect::<Result<_, _>>()? })
    }

    pub(crate) fn patterns(&self) -> &[PathPattern] {
        &self.patterns
    }

    /// The first pattern that allows `path`, none where none does.
    pub fn find(&self, path: &str) -> Option<&PathPattern> {
        let path = segments(path).ok()?;
        self.patterns.iter().find(|p| p.matches(&path))
    }
}

/// Whether everything that `need` matches is matched by `grant` too.
pub fn covers(grant: &str, need: &str) -> bool {
    let (Ok(grant), Ok(need)) = (segments(grant), segments(need)) else { return false };
    wild(&grant, &need, |g| *g == "**", |g, n| *n != "**" && segment_covers(g, n))
}

/// The segments of an absolute path.
fn segments(text: &str) -> Result<Vec<&str>, InvalidPattern> {
    let bad = |why| InvalidPattern { path: text.chars().take(256).collect(), why };
    let rest = text.strip_prefix('/').ok_or_else(|| bad("it must begin with /"))?;
    if text.len() > MAX_PATH {
        return Err(bad("it is longer than 4,096 bytes"));
    }
    if text.contains('\0') {
        return Err(bad("it contains a NUL"));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let segments: Vec<&str> = rest.split('/').collect();
    if segments.iter().any(|s| matches!(*s, "" | "." | "..")) {
        return Err(bad("it has `.`, `..` or an empty segment"));
    }
    Ok(segments)
}

/// A segment of the grant against one of the path or need; a `*` of the latter is covered by a `*` alone.
fn segment_covers(grant: &str, other: impl AsRef<str>) -> bool {
    let other = other.as_ref();
    if !grant.contains('*') {
        return grant == other;
    }
    wild(grant.as_bytes(), other.as_bytes(), |g| *g == b'*', |g, o| *o != b'*' && g == o)
}

fn wild<P, T>(
    pattern: &[P],
    text: &[T],
    is_star: impl Fn(&P) -> bool,
    fits: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while let Some(item) = text.get(t) {
        match pattern.get(p) {
            Some(x) if is_star(x) => {
                back = Some((p + 1, t));
                p += 1;
            }
            Some(x) if fits(x, item) => {
                p += 1;
                t += 1;
            }
            _ => match back {
                Some((after, from)) => {
                    back = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(is_star)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allows(pattern: &str, path: &str) -> bool {
        PathSet::new(&[pattern.to_owned()]).unwrap().find(path).is_some()
    }

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("/proc/stat", "/proc/stat", true),
            ("/proc/stat", "/proc/stat/", true),
            ("/proc/stat", "/proc/stats", false),
            ("/proc/*/stat", "/proc/1/stat", true),
            ("/proc/*/stat", "/proc/1/task/stat", false),
            ("/sys/class/net/eth*/mtu", "/sys/class/net/eth10/mtu", true),
            ("/sys/class/net/eth*/mtu", "/sys/class/net/lo/mtu", false),
            ("/sys/**", "/sys", true),
            ("/sys/**", "/sys/a/b/c", true),
            ("/sys/**/x", "/sys/x", true),
            ("/sys/**/x", "/sys/a/b/x", true),
            ("/sys/**/x", "/sys/a/b/y", false),
            ("/**", "/", true),
            ("/a/*b*c", "/a/xbybzc", true),
            ("/a/../b", "/b", false),
            ("/etc/*", "/etc/../shadow", false),
            ("/etc/*", "/etc//x", false),
            ("/etc/*", "etc/x", false),
        ] {
            match PathPattern::new(pattern) {
                Ok(_) => assert_eq!(allows(pattern, path), expected, "{pattern} {path}"),
                Err(_) => assert!(!expected, "{pattern}"),
            }
        }
    }

    #[test]
    fn roots() {
        for (pattern, root) in [
            ("/proc/stat", "/proc"),
            ("/proc/*/stat", "/proc"),
            ("/sys/class/net/**", "/sys/class/net"),
            ("/**", "/"),
            ("/a", "/"),
        ] {
            assert_eq!(PathPattern::new(pattern).unwrap().root(), Path::new(root), "{pattern}");
        }
        for bad in ["proc/x", "/a/**b", "", "/a/./b", "/a\0b"] {
            assert!(PathPattern::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn coverage() {
        for (grant, need, expected) in [
            ("/proc/**", "/proc/stat", true),
            ("/proc/**", "/proc/*/stat", true),
            ("/proc/*", "/proc/*", true),
            ("/proc/*", "/proc/**", false),
            ("/proc/stat", "/proc/*", false),
            ("/proc/*", "/proc/s*", true),
            ("/proc/s*", "/proc/*", false),
            ("/**", "/**", true),
            ("/**", "/", true),
            ("/sys/*/x", "/sys/**/x", false),
        ] {
            assert_eq!(covers(grant, need), expected, "{grant} covers {need}");
        }
    }

    proptest! {
        /// What a covering grant is for: all that the need matches, the grant matches.
        #[test]
        fn coverage_is_sound(
            grant in "(/([ab]|\\*|a\\*|\\*\\*)){1,4}",
            need in "(/([ab]|\\*|a\\*|\\*\\*)){1,4}",
            path in "(/[ab]{1,2}){1,5}",
        ) {
            if covers(&grant, &need) && allows(&need, &path) {
                prop_assert!(allows(&grant, &path), "{grant} covers {need} but not {path}");
            }
        }
    }
}
