//! Which files a plugin may delete.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Error, Rule};
use crate::grants::{Granted, PathPattern, list, path_covers, string};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Patterns as of `files`: `*` within a segment, `**` any number of segments. The folder before the first star is
    /// where is looked, and no part of it may be a link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<String>,
    /// Younger ones are left alone, whatever is asked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub older_than_seconds: u64,
    /// Where bundles are put together; none: nowhere. The folder is made by the operator, for the agent's user alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_dir: Option<PathBuf>,
    /// Of one bundle.
    #[serde(default = "bundle_bytes", skip_serializing_if = "is_bundle_bytes")]
    pub bundle_bytes: u64,
    /// Bundles that are kept.
    #[serde(default = "kept", skip_serializing_if = "is_kept")]
    pub bundles: usize,
}

const BUNDLE_BYTES: u64 = 64 << 20;
const KEPT: usize = 8;

fn bundle_bytes() -> u64 {
    BUNDLE_BYTES
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_bundle_bytes(n: &u64) -> bool {
    *n == BUNDLE_BYTES
}

fn kept() -> usize {
    KEPT
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_kept(n: &usize) -> bool {
    *n == KEPT
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The grants of one plugin.
#[derive(Debug)]
pub(crate) struct Rules {
    allowed: Vec<Allowed>,
    bundles: Option<Bundles>,
}

/// Where bundles are put together.
#[derive(Debug, Clone)]
pub(super) struct Bundles {
    pub folder: PathBuf,
    pub bytes: u64,
    pub kept: usize,
}

#[derive(Debug)]
struct Allowed {
    text: String,
    pattern: PathPattern,
    least_age: Duration,
}

/// Where is looked, and what there may be deleted.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub root: PathBuf,
    pub pattern: PathPattern,
    pub least_age: Duration,
}

impl Rules {
    /// The grant within which this rule lies.
    pub(super) fn find(&self, rule: &Rule) -> Result<Place, Error> {
        let shown: String = rule.pattern.chars().take(200).collect();
        let pattern = PathPattern::new(&rule.pattern).map_err(|e| Error::Invalid(e.to_string()))?;
        let allowed =
            self.allowed.iter().find(|a| path_covers(&a.text, &rule.pattern)).ok_or(Error::Denied(shown))?;
        Ok(Place { root: pattern.root().to_owned(), pattern, least_age: allowed.least_age })
    }

    /// Where bundles may be put together.
    pub(super) fn bundles(&self) -> Result<Bundles, Error> {
        self.bundles.clone().ok_or_else(|| Error::Denied("bundles: the grant has no bundle_dir".to_owned()))
    }

    /// The grant that allows this very path to be deleted.
    pub(super) fn delete(&self, path: &str) -> Result<Place, Error> {
        let shown: String = path.chars().take(200).collect();
        let allowed = self.allowed.iter().find(|a| a.pattern.allows(path)).ok_or(Error::Denied(shown))?;
        let root = allowed.pattern.root().to_owned();
        Ok(Place { root, pattern: allowed.pattern.clone(), least_age: allowed.least_age })
    }
}

impl Granted for Scope {
    type Compiled = Rules;

    fn compile(scopes: &[&Self]) -> Result<Rules, String> {
        let (mut allowed, mut bundles) = (Vec::new(), None);
        for scope in scopes {
            if let Some(folder) = &scope.bundle_dir {
                if !folder.is_absolute() || folder.components().any(|c| c.as_os_str() == "..") {
                    return Err(format!(
                        "`bundle_dir`: {} is not an absolute path without ..",
                        folder.display()
                    ));
                }
                let (bytes, kept) = (scope.bundle_bytes, scope.bundles.max(1));
                bundles = Some(Bundles { folder: folder.clone(), bytes, kept });
            }
            for text in &scope.delete {
                let pattern = PathPattern::new(text).map_err(|e| format!("`delete`: {e}"))?;
                if pattern.root().components().count() < 3 {
                    return Err(format!(
                        "`delete`: {text:?} begins at {}: name a folder below one of the root's, as in /var/tmp/*.core",
                        pattern.root().display()
                    ));
                }
                let kernel =
                    ["/proc", "/sys", "/dev", "/etc", "/usr", "/boot", "/bin", "/sbin", "/lib", "/lib64"];
                if kernel.iter().any(|folder| pattern.root().starts_with(folder)) {
                    return Err(format!("`delete`: {text:?}: what lies there is the system's"));
                }
                let least_age = Duration::from_secs(scope.older_than_seconds);
                allowed.push(Allowed { text: text.clone(), pattern, least_age });
            }
        }
        if allowed.is_empty() && bundles.is_none() {
            return Err("neither `delete` nor `bundle_dir`: nothing could be done".to_owned());
        }
        Ok(Rules { allowed, bundles })
    }

    fn uncovered(&self, grants: &[&Self]) -> Option<Self> {
        // Which files is the operator's to say.
        grants.is_empty().then(|| self.clone())
    }

    fn example() -> Self {
        Self {
            delete: vec!["/var/tmp/example/**".to_owned()],
            older_than_seconds: 86_400,
            bundle_dir: None,
            bundle_bytes: BUNDLE_BYTES,
            bundles: KEPT,
        }
    }

    fn lines(&self) -> String {
        let mut out = String::new();
        if !self.delete.is_empty() {
            out.push_str(&format!("delete = {}\n", list(&self.delete)));
        }
        if self.older_than_seconds > 0 {
            out.push_str(&format!("older_than_seconds = {}\n", self.older_than_seconds));
        }
        if let Some(folder) = &self.bundle_dir {
            out.push_str(&format!("bundle_dir = {}\n", string(&folder.to_string_lossy())));
            out.push_str(&format!("bundle_bytes = {}\nbundles = {}\n", self.bundle_bytes, self.bundles));
        }
        out
    }
}
