//! Where the identity lies on disk, and how a whole set of it is replaced at once.
//!
//! `<state_dir>/identity/` (0700) holds `key.pem` (0600), `certificate.pem` (chain, leaf first), `authorities.pem` and
//! `node.json`. A new set is written and synced as `identity.new`, then the folders change places by two renames, so key
//! and certificate always belong together. After a crash between the renames there is no `identity`; the next reader
//! finishes the change, or takes it back if the new set is unusable. Readers and writers hold the lock
//! `identity.lock` meanwhile. The key is never written anywhere else and never sent.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use picket_proto::model::NodeId;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::pin::sha256;
use super::{Address, CertificateInfo, CertificateReadError};

const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const AUTHORITIES: &str = "authorities.pem";
const NODE: &str = "node.json";
/// No key, chain or bundle of authorities is larger than this.
const MAX_FILE: u64 = 4 << 20;

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("this node is not enrolled ({} is missing): run `picket-agent enroll --token TOKEN`, or name certificate, key and authorities in [uplink]", .dir.display())]
    NotEnrolled { dir: PathBuf },
    #[error("{} cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} cannot be written: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} holds no {what} in PEM form: {why}", .path.display())]
    Pem { path: PathBuf, what: &'static str, why: String },
    #[error("{}: {source}", .path.display())]
    Certificate { path: PathBuf, source: CertificateReadError },
    #[error("{} is no description of an identity: {why}", .path.display())]
    Node { path: PathBuf, why: String },
    #[error("{} and {} do not make a client identity: {source}", .certificate.display(), .key.display())]
    Mismatch { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error(
        "[uplink] names {given} but not {missing}: a certificate of one's own needs certificate, key and authorities"
    )]
    Incomplete { given: &'static str, missing: &'static str },
}

/// One consistent set: key, certificate, authorities.
pub struct Identity {
    /// The certificate's content.
    pub info: CertificateInfo,
    /// Where the aggregator is, as enrolment learned it; empty for an operator's own files.
    pub aggregators: Vec<Address>,
    /// Of everything that was read: two sets with the same one are the same.
    pub fingerprint: [u8; 32],
    /// Picket's own authority issued it, so this agent renews it.
    pub renewable: bool,
    client: Arc<ClientConfig>,
}

/// Where identities come from.
#[derive(Debug, Clone)]
pub enum Source {
    Enrolled(Store),
    Files { certificate: PathBuf, key: PathBuf, authorities: PathBuf },
}

/// The folder of the enrolled identity.
#[derive(Debug, Clone)]
pub struct Store {
    state_dir: PathBuf,
}

/// A set to install: certificates and authorities as DER.
pub(super) struct NewIdentity<'a> {
    pub key_pem: &'a str,
    pub chain: &'a [Vec<u8>],
    pub authorities: &'a [Vec<u8>],
    pub node: &'a NodeId,
    pub aggregators: &'a [Address],
}

#[derive(serde::Serialize, serde::Deserialize)]
struct NodeFile {
    node: NodeId,
    aggregators: Vec<String>,
}

impl Identity {
    /// TLS towards the aggregator as this node. One for all connections of this identity, so that sessions resume.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }
}

impl Source {
    /// All three of `certificate`, `key` and `authorities`, or none: then the enrolled identity.
    pub fn new(
        state_dir: &Path,
        certificate: Option<&Path>,
        key: Option<&Path>,
        authorities: Option<&Path>,
    ) -> Result<Self, IdentityError> {
        let names = [("certificate", certificate), ("key", key), ("authorities", authorities)];
        match (certificate, key, authorities) {
            (None, None, None) => Ok(Self::Enrolled(Store::new(state_dir))),
            (Some(certificate), Some(key), Some(authorities)) => Ok(Self::Files {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                authorities: authorities.to_owned(),
            }),
            _ => {
                let find = |present| {
                    names.iter().find(|(_, path)| path.is_some() == present).map_or("", |(name, _)| *name)
                };
                Err(IdentityError::Incomplete { given: find(true), missing: find(false) })
            }
        }
    }

    /// Where the certificate and the authorities lie: what of the set is no secret.
    pub fn public_files(&self) -> (PathBuf, PathBuf) {
        match self {
            Self::Enrolled(store) => {
                let folder = store.path("identity");
                (folder.join(CERTIFICATE), folder.join(AUTHORITIES))
            }
            Self::Files { certificate, authorities, .. } => (certificate.clone(), authorities.clone()),
        }
    }

    /// The aggregators that enrolment learned of; none where that can't be read.
    pub fn aggregators(&self) -> Vec<String> {
        let Self::Enrolled(store) = self else { return Vec::new() };
        let read = read(&store.path("identity").join(NODE)).ok();
        let file: Option<NodeFile> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        file.map(|file| file.aggregators).unwrap_or_default()
    }

    /// Reads and checks the whole set. Blocks on the disk, briefly.
    pub fn load(&self) -> Result<Identity, IdentityError> {
        match self {
            Self::Enrolled(store) => store.load(),
            Self::Files { certificate, key, authorities } => load(certificate, key, authorities, None),
        }
    }
}

impl Store {
    pub fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned() }
    }

    pub fn exists(&self) -> bool {
        ["identity", "identity.new", "identity.old"].iter().any(|name| self.path(name).join(KEY).exists())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state_dir.join(name)
    }

    pub fn load(&self) -> Result<Identity, IdentityError> {
        // A state folder that cannot be written (and so not locked) is not changed either.
        let lock = self.lock().ok();
        if lock.is_some() {
            self.recover()?;
        }
        let dir = self.path("identity");
        if !dir.exists() {
            return Err(IdentityError::NotEnrolled { dir });
        }
        load_dir(&dir)
    }

    /// Puts a new set in place of the old one, whole or not at all.
    pub(super) fn install(&self, new: &NewIdentity<'_>) -> Result<Identity, IdentityError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Write { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.state_dir)
            .map_err(write(&self.state_dir))?;
        let _lock = self.lock().map_err(write(&self.path("identity.lock")))?;
        self.recover()?;

        let fresh = self.path("identity.new");
        remove(&fresh).map_err(write(&fresh))?;
        DirBuilder::new().mode(0o700).create(&fresh).map_err(write(&fresh))?;
        let node = NodeFile {
            node: new.node.clone(),
            aggregators: new.aggregators.iter().map(Address::to_string).collect(),
        };
        let node = serde_json::to_vec_pretty(&node)
            .map_err(|e| IdentityError::Node { path: fresh.join(NODE), why: e.to_string() })?;
        let (chain, authorities) = (pem(new.chain), pem(new.authorities));
        let files = [
            (KEY, new.key_pem.as_bytes(), 0o600),
            (CERTIFICATE, chain.as_bytes(), 0o644),
            (AUTHORITIES, authorities.as_bytes(), 0o644),
            (NODE, &node, 0o644),
        ];
        for (name, bytes, mode) in files {
            let path = fresh.join(name);
            write_synced(&path, bytes, mode).map_err(write(&path))?;
        }
        sync_dir(&fresh).map_err(write(&fresh))?;
        self.hand_over(&fresh).map_err(write(&fresh))?;
        // Refuse what could not be used before it replaces what can.
        let identity = match load_dir(&fresh) {
            Ok(identity) => identity,
            Err(error) => {
                let _ = remove(&fresh);
                return Err(error);
            }
        };

        let (current, old) = (self.path("identity"), self.path("identity.old"));
        if current.exists() {
            remove(&old).map_err(write(&old))?;
            fs::rename(&current, &old).map_err(write(&old))?;
        }
        fs::rename(&fresh, &current).map_err(write(&current))?;
        sync_dir(&self.state_dir).map_err(write(&self.state_dir))?;
        // The new set is in place; the old key is only rubbish now, and `recover` removes it later if this fails.
        let _ = remove(&old);
        Ok(identity)
    }

    /// Finishes or takes back a change that a crash interrupted. Under the lock.
    fn recover(&self) -> Result<(), IdentityError> {
        let (current, fresh, old) =
            (self.path("identity"), self.path("identity.new"), self.path("identity.old"));
        let write = |path: &PathBuf| {
            let path = path.clone();
            move |source| IdentityError::Write { path, source }
        };
        if !current.exists() {
            for candidate in [&fresh, &old] {
                if candidate.exists() && load_dir(candidate).is_ok() {
                    fs::rename(candidate, &current).map_err(write(&current))?;
                    sync_dir(&self.state_dir).map_err(write(&self.state_dir))?;
                    break;
                }
            }
        }
        if current.exists() {
            remove(&fresh).map_err(write(&fresh))?;
            remove(&old).map_err(write(&old))?;
        }
        Ok(())
    }

    /// Enrolled by root, used by the daemon: everything belongs to whom the state folder belongs to.
    fn hand_over(&self, fresh: &Path) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt as _, chown};
        let owner = fs::metadata(&self.state_dir)?;
        if owner.uid() == fs::metadata(fresh)?.uid() {
            return Ok(());
        }
        let (user, group) = (Some(owner.uid()), Some(owner.gid()));
        for name in [KEY, CERTIFICATE, AUTHORITIES, NODE] {
            chown(fresh.join(name), user, group)?;
        }
        chown(self.path("identity.lock"), user, group)?;
        chown(fresh, user, group)
    }

    fn lock(&self) -> io::Result<File> {
        let path = self.path("identity.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(file)
    }
}

fn load_dir(dir: &Path) -> Result<Identity, IdentityError> {
    let node = dir.join(NODE);
    load(&dir.join(CERTIFICATE), &dir.join(KEY), &dir.join(AUTHORITIES), Some(&node))
}

fn load(
    certificate: &Path,
    key: &Path,
    authorities: &Path,
    node: Option<&Path>,
) -> Result<Identity, IdentityError> {
    let pem_error = |path: &Path, what, why: String| IdentityError::Pem { path: path.to_owned(), what, why };
    let certificate_bytes = read(certificate)?;
    let key_bytes = read(key)?;
    let authorities_bytes = read(authorities)?;
    let node_bytes = node.map(read).transpose()?.unwrap_or_default();

    let chain = certificates(certificate, &certificate_bytes)?;
    let leaf =
        chain.first().ok_or_else(|| pem_error(certificate, "certificate", "it is empty".to_owned()))?;
    let info = CertificateInfo::read(leaf)
        .map_err(|source| IdentityError::Certificate { path: certificate.to_owned(), source })?;
    let private = PrivateKeyDer::from_pem_slice(&key_bytes)
        .map_err(|e| pem_error(key, "private key", e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for authority in certificates(authorities, &authorities_bytes)? {
        roots.add(authority).map_err(|e| pem_error(authorities, "certificate authority", e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(pem_error(authorities, "certificate authority", "it is empty".to_owned()));
    }
    let mut client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, private))
        .map_err(|source| IdentityError::Mismatch {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        })?;
    client.alpn_protocols = vec![b"h2".to_vec()];

    let aggregators = match node {
        Some(path) => {
            let node_error = |why| IdentityError::Node { path: path.to_owned(), why };
            let file: NodeFile =
                serde_json::from_slice(&node_bytes).map_err(|e| node_error(e.to_string()))?;
            file.aggregators
                .iter()
                .map(|a| a.parse())
                .collect::<Result<_, super::AddressError>>()
                .map_err(|e| node_error(e.to_string()))?
        }
        None => Vec::new(),
    };
    let parts = [&certificate_bytes, &key_bytes, &authorities_bytes, &node_bytes];
    let digests: Vec<u8> = parts.iter().flat_map(|part| sha256(part)).collect();
    Ok(Identity {
        info,
        aggregators,
        fingerprint: sha256(&digests),
        renewable: node.is_some(),
        client: Arc::new(client),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
        .map_err(|source| IdentityError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>().map_err(|e| IdentityError::Pem {
        path: path.to_owned(),
        what: "certificate",
        why: e.to_string(),
    })
}

fn pem(certificates: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for der in certificates {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for (at, letter) in body.chars().enumerate() {
            if at > 0 && at % 64 == 0 {
                text.push('\n');
            }
            text.push(letter);
        }
        text.push_str("\n-----END CERTIFICATE-----\n");
    }
    text
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
