//! Enrolment against a real TLS server, and the identity's life on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use picket_proto::v1;
use picket_proto::v1::enrolment_server::{Enrolment, EnrolmentServer};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::testing::{Authority, VALID, eventually, serve};
use super::*;

/// How the test aggregator answers.
#[derive(Clone, Copy)]
enum Answer {
    Issue,
    OtherNode,
    OtherKey,
    Expired,
    Refuse,
}

struct Aggregator {
    authority: Arc<Authority>,
    answer: Answer,
    asked: Arc<Mutex<Vec<v1::EnrolRequest>>>,
}

#[tonic::async_trait]
impl Enrolment for Aggregator {
    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let request = request.into_inner();
        self.asked.lock().unwrap().push(request.clone());
        let other_csr = || enrol::key_and_request().unwrap().1;
        let (node, csr, life) = match self.answer {
            Answer::Issue => ("gpu-01", request.csr, VALID),
            Answer::OtherNode => ("gpu-02", request.csr, VALID),
            Answer::OtherKey => ("gpu-01", other_csr(), VALID),
            Answer::Expired => ("gpu-01", request.csr, (100, -50)),
            Answer::Refuse => return Err(Status::permission_denied("the token was used before")),
        };
        Ok(Response::new(v1::EnrolResponse {
            node: "gpu-01".to_owned(),
            certificates: self.authority.sign(&csr, node, life),
            authorities: vec![self.authority.der()],
        }))
    }
}

struct Setup {
    authority: Arc<Authority>,
    address: String,
    asked: Arc<Mutex<Vec<v1::EnrolRequest>>>,
    state: tempfile::TempDir,
}

impl Setup {
    async fn new(answer: Answer, server_name: &str) -> Self {
        let authority = Arc::new(Authority::new("picket"));
        let asked = Arc::default();
        let service = Aggregator { authority: Arc::clone(&authority), answer, asked: Arc::clone(&asked) };
        let server = authority.server(server_name, VALID);
        let address = serve(Routes::new(EnrolmentServer::new(service)), &server, &authority).await;
        Self { authority, address, asked, state: tempfile::tempdir().unwrap() }
    }

    async fn enroll(&self, token: String) -> Result<String, EnrollError> {
        let options =
            EnrollOptions { token, aggregator: None, node: None, state_dir: self.state.path().to_owned() };
        enroll(options).await.map(|node| node.to_string())
    }

    fn token(&self) -> String {
        token(&[&self.address], &self.authority.pin())
    }
}

fn token(addresses: &[&str], pin: &[u8]) -> String {
    let json = serde_json::json!({ "a": addresses, "n": "gpu-01", "p": pin::hex(pin), "s": "the-secret" });
    format!("picket-enrol-v1.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn enrolment_leaves_a_usable_identity() {
    let setup = Setup::new(Answer::Issue, "localhost").await;
    assert!(!enrolled(setup.state.path()));
    // The first address is dead: the next one is tried.
    let text = token(&["localhost:1", &setup.address], &setup.authority.pin());
    assert_eq!(setup.enroll(text).await.unwrap(), "gpu-01");

    let dir = setup.state.path().join("identity");
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("key.pem")), 0o600);
    let identity = Store::new(setup.state.path()).load().unwrap();
    assert_eq!(identity.info.node.as_ref().unwrap().as_str(), "gpu-01");
    assert_eq!(identity.aggregators[0].to_string(), setup.address);
    assert!(identity.renewable && enrolled(setup.state.path()));
    let asked = setup.asked.lock().unwrap();
    assert_eq!(asked[0].secret, "the-secret");
    let key = fs::read_to_string(dir.join("key.pem")).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    let issued = CertificateInfo::read(&setup.authority.sign(&asked[0].csr, "x", VALID)[0]).unwrap();
    assert_eq!(issued.public_key, rcgen::PublicKeyData::subject_public_key_info(&key));
}

#[tokio::test]
async fn a_wrong_pin_stops_enrolment_before_the_secret_is_sent() {
    let setup = Setup::new(Answer::Issue, "localhost").await;
    let error = setup.enroll(token(&[&setup.address], &[7; 32])).await.unwrap_err();
    assert!(matches!(&error, EnrollError::Connect(ConnectError::PinMismatch { .. })), "{error}");
    assert!(error.to_string().contains("another aggregator"), "{error}");
    assert!(error.to_string().contains(&pin::hex(&setup.authority.pin())), "{error}");
    assert!(setup.asked.lock().unwrap().is_empty());
    assert!(!enrolled(setup.state.path()));
}

#[tokio::test]
async fn the_servers_name_must_be_in_its_certificate() {
    let setup = Setup::new(Answer::Issue, "aggregator.example").await;
    let error = setup.enroll(setup.token()).await.unwrap_err();
    assert!(matches!(&error, EnrollError::Connect(ConnectError::Name { .. })), "{error}");
    assert!(error.to_string().contains("valid for aggregator.example only"), "{error}");
}

#[tokio::test]
async fn a_certificate_under_the_pinned_authoritys_name_alone_is_refused() {
    // The server presents the pinned authority, but its own certificate is from another one of the same name.
    let pinned = Authority::new("picket");
    let other = Arc::new(Authority::new("picket"));
    let mut server = other.server("localhost", VALID);
    server.chain_pem = server.chain_pem.replace(&other.pem(), &pinned.pem());
    let asked = Arc::default();
    let service =
        Aggregator { authority: Arc::clone(&other), answer: Answer::Issue, asked: Arc::clone(&asked) };
    let address = serve(Routes::new(EnrolmentServer::new(service)), &server, &other).await;
    let state = tempfile::tempdir().unwrap();
    let options = EnrollOptions {
        token: token(&[&address], &pinned.pin()),
        aggregator: None,
        node: None,
        state_dir: state.path().to_owned(),
    };
    let error = enroll(options).await.unwrap_err();
    assert!(matches!(&error, EnrollError::Connect(ConnectError::UnknownAuthority { .. })), "{error}");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_refused_or_unusable_leaves_the_old_identity() {
    let cases = [
        (Answer::Refuse, "the token was used before"),
        (Answer::OtherNode, "names gpu-02, not gpu-01"),
        (Answer::OtherKey, "another key"),
        (Answer::Expired, "check the clocks"),
    ];
    for (answer, expected) in cases {
        let setup = Setup::new(answer, "localhost").await;
        setup.authority.enrolled(setup.state.path(), "old", VALID, &[]);
        let before = Store::new(setup.state.path()).load().unwrap().fingerprint;
        let error = setup.enroll(setup.token()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("the-secret"), "{error}");
        assert_eq!(Store::new(setup.state.path()).load().unwrap().fingerprint, before);
    }
}

#[tokio::test]
async fn peers_that_are_no_aggregator() {
    let state = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let garbage = format!("localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await;
        }
    });
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("localhost:{}", dead.local_addr().unwrap().port());
    drop(dead);
    for (address, expected) in [
        (garbage, "it does not speak TLS"),
        (closed, "nothing listens"),
        ("nowhere.invalid:1".to_owned(), "cannot be resolved"),
    ] {
        let options = EnrollOptions {
            token: token(&["unused:1"], &[0; 32]),
            aggregator: Some(address),
            node: None,
            state_dir: state.path().to_owned(),
        };
        let error = enroll(options).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_change_that_a_crash_interrupted_is_finished_or_taken_back() {
    let authority = Authority::new("picket");
    type Lies = &'static [(&'static str, &'static str)];
    // What lies there, and whose identity is loaded then. "!": without its key.
    let cases: [(Lies, Option<&str>); 7] = [
        (&[("identity", "a")], Some("a")),
        (&[("identity", "a"), ("identity.new", "b")], Some("a")),
        (&[("identity", "a"), ("identity.new", "!b")], Some("a")),
        (&[("identity.old", "a"), ("identity.new", "b")], Some("b")),
        (&[("identity.old", "a"), ("identity.new", "!b")], Some("a")),
        (&[("identity", "b"), ("identity.old", "a")], Some("b")),
        (&[("identity.new", "!b")], None),
    ];
    for (lies, expected) in cases {
        let state = tempfile::tempdir().unwrap();
        for (folder, node) in lies {
            let temporary = tempfile::tempdir().unwrap();
            authority.enrolled(temporary.path(), node.trim_start_matches('!'), VALID, &[]);
            if node.starts_with('!') {
                fs::write(temporary.path().join("identity/key.pem"), "-----BEGIN").unwrap();
            }
            fs::rename(temporary.path().join("identity"), state.path().join(folder)).unwrap();
        }
        let loaded = Store::new(state.path()).load();
        let node =
            loaded.as_ref().ok().and_then(|identity| identity.info.node.as_ref()).map(|node| node.as_str());
        assert_eq!(node, expected, "{lies:?}");
        if expected.is_some() {
            assert!(
                !state.path().join("identity.new").exists() && !state.path().join("identity.old").exists()
            );
        }
    }
}

#[tokio::test]
async fn readers_always_see_one_whole_set() {
    let authority = Arc::new(Authority::new("picket"));
    let state = tempfile::tempdir().unwrap();
    authority.enrolled(state.path(), "gpu-01", VALID, &[]);
    let store = Store::new(state.path());
    let writer = {
        let (store, authority) = (store.clone(), Arc::clone(&authority));
        tokio::task::spawn_blocking(move || {
            for _ in 0..20 {
                let current = store.load().unwrap();
                let (request, csr) = RenewalRequest::new().unwrap();
                let answer = v1::RenewResponse {
                    certificates: authority.sign(&csr, "gpu-01", VALID),
                    authorities: vec![authority.der()],
                    refused: String::new(),
                };
                request.accept(&store, &current, answer).unwrap();
            }
        })
    };
    eventually("the writer is done", || {
        // Loading checks that key and certificate belong together.
        store.load().unwrap();
        writer.is_finished().then_some(())
    })
    .await;
    writer.await.unwrap();
}

#[test]
fn an_operators_own_files() {
    let authority = Authority::new("site");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (one, two) = (authority.client("a", VALID), authority.client("b", VALID));
    fs::write(path("certificate"), &one.chain_pem).unwrap();
    fs::write(path("key"), &one.key_pem).unwrap();
    fs::write(path("other-key"), &two.key_pem).unwrap();
    fs::write(path("authorities"), authority.pem()).unwrap();
    fs::write(path("empty"), "").unwrap();

    let load = |certificate: &str, key: &str, authorities: &str| {
        let (certificate, key, authorities) = (path(certificate), path(key), path(authorities));
        Source::new(dir.path(), Some(&certificate), Some(&key), Some(&authorities)).unwrap().load()
    };
    let good = load("certificate", "key", "authorities").unwrap();
    assert!(!good.renewable);
    let cases = [
        (load("certificate", "other-key", "authorities"), "do not make a client identity"),
        (load("certificate", "key", "empty"), "no certificate authority"),
        (load("empty", "key", "authorities"), "no certificate"),
        (load("certificate", "empty", "authorities"), "no private key"),
        (load("certificate", "missing", "authorities"), "cannot be read"),
    ];
    for (loaded, expected) in cases {
        let error = loaded.err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let incomplete = Source::new(dir.path(), Some(&path("certificate")), None, Some(&path("authorities")));
    assert!(incomplete.unwrap_err().to_string().contains("names certificate but not key"));
    let missing = Source::new(dir.path(), None, None, None).unwrap().load();
    assert!(missing.err().unwrap().to_string().contains("not enrolled"));
}
