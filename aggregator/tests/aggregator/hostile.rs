//! Strangers: garbage, stallers, crowds. A node and an operator get through all the same.

use std::net::SocketAddr;
use std::time::Duration;

use picket_aggregator::identity::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::{Aggregator, client_config, connect, within};

async fn both_ports_serve(aggregator: &Aggregator, node: &str) {
    let identity = aggregator.enrol(node).await;
    drop(aggregator.stream(Some(&identity)).await.unwrap());
    let token = aggregator.token(Role::Viewer);
    assert_eq!(aggregator.call("GET", "/readyz", Some(&token), None).await.status, 200);
}

/// Sends bytes and reads until the other side closes; what the answer is does not matter.
async fn throw(address: SocketAddr, bytes: &[u8]) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let _ = tcp.write_all(bytes).await;
    let _ = tcp.shutdown().await;
    let mut sink = Vec::new();
    let _ = within("the close after garbage", tcp.read_to_end(&mut sink)).await;
}

#[tokio::test]
async fn garbage_is_shrugged_off() {
    let aggregator = Aggregator::start().await;
    let mut noise = vec![0_u8; 64 * 1024];
    let mut state = 1_u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let hello = [0x16, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff];
    for address in [aggregator.uplink, aggregator.http] {
        for bytes in [
            &b""[..],
            b"\0",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &noise,
            &hello,
        ] {
            throw(address, bytes).await;
        }
        // Past the handshake, too.
        let roots: Vec<_> = aggregator.authority.iter().cloned().collect();
        let alpn: &[&[u8]] = if address == aggregator.uplink { &[b"h2"] } else { &[b"http/1.1"] };
        for bytes in
            [&noise[..], b"\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\x00\x00\x00\x00\x00"]
        {
            let mut tls = connect(address, client_config(&roots, None, alpn)).await.unwrap();
            let _ = tls.write_all(bytes).await;
            let _ = tls.shutdown().await;
            let mut sink = Vec::new();
            let _ = within("the close after garbage in TLS", tls.read_to_end(&mut sink)).await;
        }
    }
    both_ports_serve(&aggregator, "a").await;
}

#[tokio::test]
async fn a_crowd_of_stallers_keeps_nobody_out() {
    let aggregator = Aggregator::start().await;
    let mut stalled = Vec::new();
    for _ in 0..400 {
        for address in [aggregator.uplink, aggregator.http] {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            // The beginning of a handshake, and then nothing.
            let _ = tcp.write_all(&[0x16, 3, 1, 2, 0]).await;
            stalled.push(tcp);
        }
    }
    let begun = std::time::Instant::now();
    both_ports_serve(&aggregator, "a").await;
    assert!(begun.elapsed() < Duration::from_secs(8), "waited for the stallers: {:?}", begun.elapsed());
    // The API's port holds 256 pending ones: the oldest had to go.
    let mut byte = [0];
    let first = within("the oldest staller's end", stalled[1].read(&mut byte)).await;
    assert!(matches!(first, Ok(0) | Err(_)));
    drop(stalled);
}

#[tokio::test]
async fn a_stalled_handshake_ends() {
    let aggregator = Aggregator::start().await;
    let mut tcp = TcpStream::connect(aggregator.uplink).await.unwrap();
    let mut byte = [0];
    let end = within("the end of a stalled handshake", tcp.read(&mut byte)).await;
    assert!(matches!(end, Ok(0) | Err(_)));
}

#[tokio::test]
async fn one_certificate_cannot_take_all_places() {
    let aggregator = Aggregator::start().await;
    let identity = aggregator.enrol("a").await;
    let roots: Vec<_> = aggregator.authority.iter().cloned().collect();
    let mut open = Vec::new();
    for _ in 0..40 {
        if let Ok(tls) = connect(aggregator.uplink, client_config(&roots, Some(&identity), &[b"h2"])).await {
            open.push(tls);
        }
    }
    let mut trusted = usize::MAX;
    for _ in 0..200 {
        let (pending, now) = aggregator.api.uplink_gate.counts();
        trusted = now;
        if pending == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(trusted <= 16, "{trusted} connections of one certificate");
    both_ports_serve(&aggregator, "b").await;
}

#[tokio::test]
async fn a_client_that_asks_for_a_resumed_session_is_checked_again() {
    let aggregator = Aggregator::start().await;
    let identity = aggregator.enrol("a").await;
    let roots: Vec<_> = aggregator.authority.iter().cloned().collect();
    // One configuration keeps its tickets between connections.
    let config = client_config(&roots, Some(&identity), &[b"h2"]);
    let open = async || {
        let channel = crate::fixture::channel(aggregator.uplink, config.clone()).await.unwrap();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let hello = picket_proto::v1::Hello { codecs: vec![1], ..Default::default() };
        sender
            .send(crate::fixture::say(picket_proto::v1::uplink_message::Message::Hello(hello)))
            .await
            .unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = picket_proto::v1::uplink_client::UplinkClient::new(channel);
        let mut answers = within("a stream", client.stream(stream)).await?.into_inner();
        within("an answer", answers.message()).await
    };
    open().await.unwrap();
    open().await.unwrap();
    // The kinds of handshakes, seen from a bare connection.
    let tls = connect(aggregator.uplink, config.clone()).await.unwrap();
    assert_eq!(tls.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    aggregator.call("POST", "/api/v1/nodes/a/revoke", Some(&aggregator.admin), None).await;
    let status = open().await.expect_err("a revoked node streams on a resumed session");
    assert!(status.message().contains("revoked"), "{status:?}");
}
