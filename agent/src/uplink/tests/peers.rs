//! Peers that cannot or must not be talked to: what the operator reads then.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use super::aggregator::Behaviour;
use super::*;
use crate::identity::testing::{Authority, Life};
use picket_proto::v1::downlink_message::Message as Down;

const EXPIRED: Life = (7200, -3600);
const FUTURE: Life = (-3600, 7200);

/// How one end differs from what it should be.
#[derive(Default)]
struct Difference {
    server_life: Option<Life>,
    client_life: Option<Life>,
    server_name: Option<&'static str>,
    /// The aggregator's certificate is from another authority than the one the node trusts.
    other_server_authority: bool,
    /// The node's certificate is from another authority than the one the aggregator trusts.
    other_client_authority: bool,
}

#[tokio::test]
async fn handshakes_that_fail_say_why() {
    let check = async |difference: Difference, expected: &str| {
        let authority = Arc::new(Authority::new("picket"));
        let other = Arc::new(Authority::new("other"));
        let serving = if difference.other_server_authority { &other } else { &authority };
        let name = difference.server_name.unwrap_or("localhost");
        let server = serving.server(name, difference.server_life.unwrap_or(VALID));
        let clients = if difference.other_client_authority { &other } else { &authority };
        let aggregator =
            Aggregator::start_with(Behaviour::default(), Arc::clone(&authority), &server, clients).await;
        let state = tempfile::tempdir().unwrap();
        authority.enrolled(state.path(), "gpu-01", difference.client_life.unwrap_or(VALID), &[]);
        let node = Node::start_in(state, &aggregator.address, timing());
        node.error(expected).await;
        assert_eq!(aggregator.streams(), 0);
        node.stop().await;
    };
    check(
        Difference { other_server_authority: true, ..Default::default() },
        "not from a certificate authority",
    )
    .await;
    check(Difference { server_life: Some(EXPIRED), ..Default::default() }, "this node's clock says").await;
    check(Difference { server_life: Some(FUTURE), ..Default::default() }, "clock is probably behind").await;
    check(Difference { server_name: Some("agg.example"), ..Default::default() }, "agg.example only").await;
    check(Difference { client_life: Some(EXPIRED), ..Default::default() }, "this node's certificate ended")
        .await;
    check(Difference { other_client_authority: true, ..Default::default() }, "does not know the authority")
        .await;
}

#[tokio::test]
async fn no_identity_and_no_address() {
    let node = Node::start_in(tempfile::tempdir().unwrap(), "localhost:1", timing());
    node.error("picket-agent enroll --token TOKEN").await;
    // Enrolled while it waits: found without a restart.
    let aggregator = Aggregator::start(Behaviour::default()).await;
    aggregator.authority.enrolled(node.state.path(), "gpu-01", VALID, &[]);
    node.error("nothing listens").await;
    node.stop().await;

    let state = tempfile::tempdir().unwrap();
    aggregator.authority.enrolled(state.path(), "gpu-01", VALID, &[]);
    let node = Node::start_in(state, "", timing());
    node.error("no aggregator is configured").await;
    node.stop().await;
}

#[tokio::test]
async fn addresses_of_the_enrolment_are_tried_in_turn() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let state = tempfile::tempdir().unwrap();
    let addresses = ["localhost:1".to_owned(), aggregator.address.clone()];
    aggregator.authority.enrolled(state.path(), "gpu-01", VALID, &addresses);
    let node = Node::start_in(state, "", timing());
    node.connected().await;
    node.stop().await;
}

/// A TLS server with the right certificate that answers with these bytes.
async fn speaks(authority: &Authority, alpn: &[&[u8]], answer: &'static [u8]) -> String {
    use rustls_pki_types::pem::PemObject as _;
    let issued = authority.server("localhost", VALID);
    let chain = rustls_pki_types::CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes());
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.write_all(answer).await;
            let _ = stream.flush().await;
            let mut sink = [0; 4096];
            while matches!(stream.read(&mut sink).await, Ok(n) if n > 0) {}
        }
    });
    address
}

#[tokio::test]
async fn servers_that_speak_something_else() {
    let authority = Authority::new("picket");
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain_address = format!("localhost:{}", plain.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let cases = [
        (plain_address, "does not speak TLS"),
        (speaks(&authority, &[], b"hello").await, "not HTTP/2"),
        (speaks(&authority, &[b"http/1.1"], b"hello").await, "not HTTP/2"),
        (
            speaks(&authority, &[b"h2"], b"HTTP/1.1 200 OK\r\n\r\n these bytes are no frame").await,
            "not a Picket aggregator",
        ),
    ];
    for (address, expected) in cases {
        let state = tempfile::tempdir().unwrap();
        authority.enrolled(state.path(), "gpu-01", VALID, &[]);
        let node = Node::start_in(state, &address, timing());
        node.error(expected).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn refusals_by_status() {
    let cases = [
        (
            Code::PermissionDenied,
            "gpu-01 is revoked",
            "does not accept this node's certificate: gpu-01 is revoked",
        ),
        (Code::Unauthenticated, "who?", "enrol it again"),
        (Code::Unimplemented, "", "knows no uplink"),
        (Code::ResourceExhausted, "too many streams", "busy"),
    ];
    for (code, message, expected) in cases {
        let behaviour = Behaviour { refuse: Some((code, message)), ..Behaviour::default() };
        let aggregator = Aggregator::start(behaviour).await;
        let node = Node::start(&aggregator);
        node.error(expected).await;
        node.stop().await;
    }
    let aggregator = Aggregator::start(Behaviour { codec: 99, ..Behaviour::default() }).await;
    let node = Node::start(&aggregator);
    node.error("codec 99").await;
    node.stop().await;
}

#[tokio::test]
async fn a_revoked_node_waits_until_it_is_enrolled_anew() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let node = Node::start(&aggregator);
    node.connected().await;
    let goodbye = v1::Goodbye { reason: "revoked".into(), message: "by the operator".into() };
    aggregator.say(0, Down::Goodbye(goodbye)).await;
    let error = node.error("revoked").await;
    assert!(error.contains("by the operator") && error.contains("new token"), "{error}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(aggregator.streams(), 1, "it keeps away");
    aggregator.authority.enrolled(node.state.path(), "gpu-01", VALID, &[]);
    eventually("a stream with the new identity", || (aggregator.streams() == 2).then_some(())).await;
    node.stop().await;
}

#[tokio::test]
async fn an_expired_stream_goes_on_with_the_renewed_certificate_at_once() {
    let aggregator = Aggregator::start(Behaviour { renew: Some((0, 86_400)), ..Behaviour::default() }).await;
    let state = tempfile::tempdir().unwrap();
    aggregator.authority.enrolled(state.path(), "gpu-01", (9000, 1000), &[]);
    let node = Node::start_in(state, &aggregator.address, timing());
    eventually("a renewal", || (node.status.renewals() == 1).then_some(())).await;
    aggregator.say(0, Down::Goodbye(v1::Goodbye { reason: "expired".into(), message: String::new() })).await;
    eventually("another stream", || (aggregator.streams() == 2).then_some(())).await;
    // Expired again, with nothing newer at hand: it waits for a person.
    aggregator.say(1, Down::Goodbye(v1::Goodbye { reason: "expired".into(), message: String::new() })).await;
    node.error("has expired").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(aggregator.streams(), 2);
    node.stop().await;
}

/// A forwarder that can fall silent without closing anything.
async fn forwarder(to: String) -> (String, watch::Sender<bool>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let (silent, heard) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = tokio::net::TcpStream::connect(&to).await.unwrap();
            let (near, far) = (near.into_split(), far.into_split());
            for (mut from, mut to) in [(near.0, far.1), (far.0, near.1)] {
                let mut heard = heard.clone();
                tokio::spawn(async move {
                    let mut bytes = vec![0; 16 * 1024];
                    while let Ok(n) = from.read(&mut bytes).await {
                        let _ = heard.wait_for(|silent| !silent).await;
                        if n == 0 || to.write_all(&bytes[..n]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    (address, silent)
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let (address, silent) = forwarder(aggregator.address.clone()).await;
    let state = tempfile::tempdir().unwrap();
    aggregator.authority.enrolled(state.path(), "gpu-01", VALID, &[]);
    let quick = Timing { ping: (Duration::from_millis(100), Duration::from_millis(300)), ..timing() };
    let quick = Timing { connect: Duration::from_millis(500), ..quick };
    let node = Node::start_in(state, &address, quick);
    node.append_simple(1).await;
    node.pending(0).await;
    silent.send(true).unwrap();
    node.append_simple(2).await;
    eventually("it is noticed", || (!node.status.connected()).then_some(())).await;
    silent.send(false).unwrap();
    node.pending(0).await;
    assert_eq!(node.status.acked_sequence(), 2);
    node.stop().await;
}

#[tokio::test]
async fn tls_sessions_resume() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let node = Node::start(&aggregator);
    node.append_simple(1).await;
    node.pending(0).await;
    assert_eq!(node.status.tls_resumptions(), 0);
    aggregator.cut(0).await;
    eventually("another stream", || (aggregator.streams() == 2).then_some(())).await;
    assert_eq!(node.status.tls_resumptions(), 1);
    node.stop().await;
}
