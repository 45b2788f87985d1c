//! What a node asks of a plugin before it runs it.
//!
//! Deny by default: an empty policy trusts nobody. A plugin has two names, the one in its manifest, by which its makers are
//! known, and the one in the node's configuration, by which it gets its grants. The rules of both must be kept, so that
//! who may sign one plugin can't sign another one's successor. A plugin's own rule replaces the default one and is never
//! merged with it. What is revoked is refused, whatever else is so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use picket_proto::model::PluginId;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::envelope::Envelope;
use crate::evidence::Evidence;
use crate::keys::{InvalidKey, KeyId, PublicKey};
use crate::manifest::{Manifest, Need};
use crate::section::{Damaged, manifest_bytes};
use crate::sigstore::{Bundle, Identity, TrustedRoot};
use crate::untrusted::Untrusted;

/// The longest policy, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// The longest file that it names.
const MAX_FILE: u64 = 1 << 20;

/// Who is trusted with what. [`Default`] is the empty one: nobody.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    signers: BTreeMap<String, Signer>,
    default: Rule,
    plugins: BTreeMap<PluginId, Rule>,
    revoked_digests: BTreeSet<Digest>,
    revoked_keys: BTreeSet<KeyId>,
}

#[derive(Debug, Clone, PartialEq)]
enum Signer {
    Key(PublicKey),
    Identity(Box<Identity>),
}

/// What is asked of one plugin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default)]
    pub require: Require,
    /// Names of keys and identities; none given: all that the policy has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signers: Option<Vec<String>>,
    /// Older ones are refused. Versions are semantic ones (semver.org).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<semver::Version>,
    /// Runs without a signature too. What is signed must be signed well all the same.
    #[serde(default)]
    pub allow_unsigned: bool,
}

/// How many of the signers must have signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Require {
    #[default]
    AnyOf,
    AllOf,
}

/// A plugin, as it lies there.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The name in the node's configuration; none: judged by its manifest's alone.
    pub configured: Option<&'a PluginId>,
    pub bytes: &'a [u8],
    pub evidence: &'a Evidence,
}

/// A plugin that is trusted.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub digest: Digest,
    /// None: the component has no manifest.
    pub manifest: Option<Manifest<Need>>,
    /// The names of those that signed it and count; empty: it is not signed, and may be so.
    pub signers: Vec<String>,
}

impl Verdict {
    /// Who vouches for it, in a few words.
    pub fn signed_by(&self) -> String {
        if self.signers.is_empty() { "unsigned".to_owned() } else { self.signers.join(", ") }
    }
}

/// Why a policy can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{} cannot be read: {source}", .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} is larger than {most} bytes", .path.display())]
    TooLarge { path: PathBuf, most: u64 },
    #[error("{} is no policy: {why}", .path.display())]
    Syntax { path: PathBuf, why: String },
    #[error("{}: keys.{name}: {source}", .path.display())]
    Key { path: PathBuf, name: String, source: InvalidKey },
    #[error("{}: keys.{name} must have one of `file` and `pem`", .path.display())]
    KeySource { path: PathBuf, name: String },
    #[error("{}: identities.{name}: {why}", .path.display())]
    Identity { path: PathBuf, name: String, why: String },
    #[error("{}: the name {name} stands for a key and for an identity", .path.display())]
    Twice { path: PathBuf, name: String },
    #[error("{}: {rule}.signers names {name}, which is no key and no identity of the policy", .path.display())]
    UnknownSigner { path: PathBuf, rule: String, name: String },
    #[error("{}: {rule}.signers is empty; leave it out to take all signers, or leave the plugin out", .path.display())]
    NoSigner { path: PathBuf, rule: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The layout's version: 1.
    policy: u32,
    #[serde(default)]
    keys: BTreeMap<String, WrittenKey>,
    #[serde(default)]
    identities: BTreeMap<String, WrittenIdentity>,
    #[serde(default)]
    default: Rule,
    #[serde(default)]
    plugins: BTreeMap<PluginId, Rule>,
    #[serde(default)]
    revoked: Revoked,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    file: Option<PathBuf>,
    pem: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenIdentity {
    issuer: String,
    subject: String,
    trusted_root: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoked {
    #[serde(default)]
    digests: BTreeSet<Digest>,
    #[serde(default)]
    keys: BTreeSet<KeyId>,
}

impl Policy {
    /// Reads a policy and the files that it names, which are looked for beside it. Blocks on the disk.
    ///
    /// # Errors
    /// [`PolicyError`]
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let text = read(path, MAX_BYTES)?;
        let syntax = |why: String| PolicyError::Syntax { path: path.to_owned(), why };
        let text = std::str::from_utf8(&text).map_err(|e| syntax(e.to_string()))?;
        let written: Written =
            toml::from_str(text).map_err(|e| syntax(e.to_string().trim_end().to_owned()))?;
        if written.policy != 1 {
            return Err(syntax(format!("policy = {}: this program reads version 1", written.policy)));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut signers = BTreeMap::new();
        for (name, key) in written.keys {
            let pem = match (key.file, key.pem) {
                (Some(file), None) => read(&folder.join(file), MAX_FILE)?,
                (None, Some(pem)) => pem.into_bytes(),
                _ => return Err(PolicyError::KeySource { path: path.to_owned(), name }),
            };
            let key = PublicKey::from_pem(&pem).map_err(|source| PolicyError::Key {
                path: path.to_owned(),
                name: name.clone(),
                source,
            })?;
            signers.insert(name, Signer::Key(key));
        }
        for (name, identity) in written.identities {
            if signers.contains_key(&name) {
                return Err(PolicyError::Twice { path: path.to_owned(), name });
            }
            let root = read(&folder.join(identity.trusted_root), MAX_FILE)?;
            let read = TrustedRoot::parse(&root)
                .and_then(|root| Identity::new(&identity.issuer, &identity.subject, root));
            let identity = read.map_err(|e| PolicyError::Identity {
                path: path.to_owned(),
                name: name.clone(),
                why: e.to_string(),
            })?;
            signers.insert(name, Signer::Identity(Box::new(identity)));
        }
        let named = written.plugins.iter().map(|(id, rule)| (format!("plugins.{id}"), rule));
        for (rule, of) in std::iter::once(("default".to_owned(), &written.default)).chain(named) {
            let Some(list) = &of.signers else { continue };
            if list.is_empty() {
                return Err(PolicyError::NoSigner { path: path.to_owned(), rule });
            }
            if let Some(name) = list.iter().find(|name| !signers.contains_key(*name)) {
                let name = name.clone();
                return Err(PolicyError::UnknownSigner { path: path.to_owned(), rule, name });
            }
        }
        Ok(Self {
            signers,
            default: written.default,
            plugins: written.plugins,
            revoked_digests: written.revoked.digests,
            revoked_keys: written.revoked.keys,
        })
    }

    /// The same, and what is not signed runs too.
    #[must_use]
    pub fn allowing_unsigned(mut self) -> Self {
        self.default.allow_unsigned = true;
        for rule in self.plugins.values_mut() {
            rule.allow_unsigned = true;
        }
        self
    }

    /// One that asks for the signature of this key and for nothing else.
    pub fn of_key(name: &str, key: PublicKey) -> Self {
        Self { signers: BTreeMap::from([(name.to_owned(), Signer::Key(key))]), ..Self::default() }
    }

    /// The rule that holds for a plugin of this name.
    pub fn rule(&self, id: &PluginId) -> &Rule {
        self.plugins.get(id).unwrap_or(&self.default)
    }

    /// Whether components of this digest are refused, whoever signed them.
    pub fn revokes(&self, digest: &Digest) -> bool {
        self.revoked_digests.contains(digest)
    }

    /// Whether these bytes may run, and by whose word.
    ///
    /// # Errors
    /// [`Untrusted`]
    pub fn judge(&self, subject: Subject<'_>) -> Result<Verdict, Untrusted> {
        let digest = Digest::of(subject.bytes);
        if self.revokes(&digest) {
            return Err(Untrusted::Revoked);
        }
        let manifest = match manifest_bytes(subject.bytes) {
            // Whoever loads it says better what it is instead.
            Err(Damaged::Kind) => None,
            read => read?.map(Manifest::<Need>::parse).transpose()?,
        };
        let mut rules: Vec<&Rule> = Vec::with_capacity(2);
        rules.extend(manifest.as_ref().map(|m| self.rule(&m.id)));
        let configured = subject.configured.filter(|id| manifest.as_ref().is_none_or(|m| m.id != **id));
        rules.extend(configured.map(|id| self.rule(id)));
        if rules.is_empty() {
            rules.push(&self.default);
        }
        let version = manifest.as_ref().map(|m| m.version.as_str()).unwrap_or_default();
        if let Some(minimum) = rules.iter().filter_map(|rule| rule.minimum_version.as_ref()).max()
            && semver::Version::parse(version).ok().is_none_or(|version| version < *minimum)
        {
            let version = if version.is_empty() { "not known" } else { version };
            return Err(Untrusted::TooOld { version: version.to_owned(), minimum: minimum.to_string() });
        }
        let signatures = self.signatures(subject, digest, manifest.as_ref())?;
        let mut signers: Vec<String> = Vec::new();
        for rule in rules {
            for name in self.keeps(rule, &signatures)? {
                if !signers.contains(&name) {
                    signers.push(name);
                }
            }
        }
        Ok(Verdict { digest, manifest, signers })
    }

    /// Who signed these bytes, whether or not anybody asks for it.
    fn signatures(
        &self,
        subject: Subject<'_>,
        digest: Digest,
        manifest: Option<&Manifest<Need>>,
    ) -> Result<Signatures, Untrusted> {
        let mut found = Signatures { any: !subject.evidence.is_empty(), ..Signatures::default() };
        if let Some(bytes) = &subject.evidence.signature {
            let envelope = Envelope::parse(bytes)?;
            let said = envelope.statement();
            let (id, version) = manifest.map_or(("", ""), |m| (m.id.as_str(), m.version.as_str()));
            if said.digest != digest || said.id != id || said.version != version {
                return Err(Untrusted::OtherFile {
                    signed: Box::new((said.id.clone(), said.version.clone(), said.digest)),
                    is: Box::new((id.to_owned(), version.to_owned(), digest)),
                });
            }
            for (name, signer) in &self.signers {
                let Signer::Key(key) = signer else { continue };
                match envelope.signed_by(key) {
                    Some(true) => found.note(name, key.id(), &self.revoked_keys),
                    Some(false) => return Err(Untrusted::BadSignature { signer: name.clone() }),
                    None => {}
                }
            }
            let known: BTreeSet<KeyId> = self
                .signers
                .values()
                .filter_map(|signer| match signer {
                    Signer::Key(key) => Some(key.id()),
                    Signer::Identity(_) => None,
                })
                .collect();
            found.unknown.extend(envelope.keys().filter(|id| !known.contains(id)));
        }
        if let Some(bytes) = &subject.evidence.bundle {
            let bundle = Bundle::parse(bytes)?;
            bundle.check_digest(&digest)?;
            for (name, signer) in &self.signers {
                match signer {
                    Signer::Key(key) if bundle.signed_by(key, subject.bytes) => {
                        found.note(name, key.id(), &self.revoked_keys);
                    }
                    Signer::Key(_) => {}
                    Signer::Identity(identity) => {
                        if bundle.signed_as(identity, subject.bytes, &digest)? {
                            found.by.insert(name.clone());
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// The signers that keep this rule.
    fn keeps(&self, rule: &Rule, signatures: &Signatures) -> Result<Vec<String>, Untrusted> {
        let wanted: Vec<String> = match &rule.signers {
            Some(names) => names.clone(),
            None => self.signers.keys().cloned().collect(),
        };
        let by: Vec<String> = wanted.iter().filter(|name| signatures.by.contains(*name)).cloned().collect();
        let enough = match rule.require {
            Require::AnyOf => !by.is_empty(),
            Require::AllOf => !wanted.is_empty() && by.len() == wanted.len(),
        };
        if enough || rule.allow_unsigned {
            return Ok(by);
        }
        if !signatures.any {
            return Err(Untrusted::Unsigned);
        }
        if by.is_empty()
            && let Some(key) = signatures.revoked.iter().find(|name| wanted.contains(name))
        {
            return Err(Untrusted::RevokedKey { key: key.clone() });
        }
        let unknown = signatures.unknown.clone();
        Err(Untrusted::NotEnough { wanted, by, unknown, all: rule.require == Require::AllOf })
    }
}

#[derive(Default)]
struct Signatures {
    /// There is something beside the file.
    any: bool,
    by: BTreeSet<String>,
    /// Signed with these keys, which count no more.
    revoked: BTreeSet<String>,
    unknown: Vec<KeyId>,
}

impl Signatures {
    fn note(&mut self, name: &str, key: KeyId, revoked: &BTreeSet<KeyId>) {
        let of = if revoked.contains(&key) { &mut self.revoked } else { &mut self.by };
        of.insert(name.to_owned());
    }
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, PolicyError> {
    use std::io::Read as _;
    let failed = |source| PolicyError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(PolicyError::TooLarge { path: path.to_owned(), most });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
