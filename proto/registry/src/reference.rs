//! What an artifact is called.

use std::fmt;
use std::str::FromStr;

use picket_artifact::Digest;

use crate::RegistryError;

/// `HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub host: String,
    pub repository: String,
    pub tag: Option<String>,
    /// Of the artifact's manifest: exactly this one.
    pub digest: Option<Digest>,
}

impl FromStr for Reference {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let invalid = |why| RegistryError::Reference { text: text.chars().take(200).collect(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| invalid("its digest is none of SHA-256"))?))
            }
            None => (text, None),
        };
        let (host, path) = rest.split_once('/').ok_or(invalid("it has no repository"))?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        let word = |text: &str, more: &[char]| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
        };
        if !word(host, &['.', '-', ':', '[', ']']) {
            return Err(invalid("its host is no host"));
        }
        let parts = repository.split('/');
        if !parts.clone().all(|part| word(part, &['.', '-', '_']) && !part.starts_with('.')) {
            return Err(invalid("its repository has a character that none may have"));
        }
        if tag.as_ref().is_some_and(|tag| !word(tag, &['.', '-', '_']) || tag.len() > 128) {
            return Err(invalid("its tag has a character that none may have"));
        }
        Ok(Self { host: host.to_owned(), repository: repository.to_owned(), tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{}", digest.tagged())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for good in [
            "localhost:5000/plugins/node:1.0.0",
            "registry.example/node",
            &format!("registry.example/a/b_c/d-e@{digest}"),
            &format!("[::1]:5000/a:v1@{digest}"),
        ] {
            assert_eq!(good.parse::<Reference>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "node",
            "host/",
            "/node",
            "host/a//b",
            "host/../b",
            "host/a b",
            "host/a:",
            "host/a:b c",
            "ho st/a",
            "host/a@sha256:1",
            "host/a?x=1",
            "host/a#b",
            "host@evil/a",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
