//! A CA of the operator's own.

use std::path::Path;

use picket_aggregator::config::Config;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use serde_json::json;

use crate::fixture::{Aggregator, Identity, write};

fn ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(
    ca: &CertifiedIssuer<'static, KeyPair>,
    usage: ExtendedKeyUsagePurpose,
    change: impl FnOnce(&mut CertificateParams),
) -> (String, KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = time::OffsetDateTime::now_utc();
    params.extended_key_usages = vec![usage];
    change(&mut params);
    let certificate = params.signed_by(&key, ca).unwrap();
    (certificate.pem(), key, certificate.der().to_vec())
}

fn node(ca: &CertifiedIssuer<'static, KeyPair>, change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let (_, key, der) = leaf(ca, ExtendedKeyUsagePurpose::ClientAuth, change);
    Identity::new(vec![der], &key)
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn configure(
    config: &mut Config,
    dir: &Path,
    server: &CertifiedIssuer<'static, KeyPair>,
    clients: &CertifiedIssuer<'static, KeyPair>,
) {
    let (pem, key, _) =
        leaf(server, ExtendedKeyUsagePurpose::ServerAuth, |p| p.subject_alt_names = vec![dns("localhost")]);
    write(&dir.join("server.pem"), &pem);
    write(&dir.join("server.key"), &key.serialize_pem());
    write(&dir.join("clients.pem"), &clients.pem());
    config.identity.certificate = Some(dir.join("server.pem"));
    config.identity.key = Some(dir.join("server.key"));
    config.identity.client_authorities = Some(dir.join("clients.pem"));
}

#[tokio::test]
async fn nodes_of_an_own_ca_stream_and_are_revoked_by_name() {
    let files = tempfile::tempdir().unwrap();
    let (server_ca, client_ca) = (ca("server"), ca("clients"));
    let mut aggregator =
        Aggregator::with(|config| configure(config, files.path(), &server_ca, &client_ca)).await;
    aggregator.authority = Some(server_ca.der().clone());
    assert!(!aggregator.config.state_dir.join("ca.key").exists(), "no CA is made");

    let by_dns = node(&client_ca, |p| p.subject_alt_names = vec![dns("gpu-01.example")]);
    let by_name = node(&client_ca, |p| p.distinguished_name.push(DnType::CommonName, "gpu-02"));
    let by_uri = node(&client_ca, |p| {
        p.subject_alt_names =
            vec![dns("x.example"), SanType::URI("picket://node/gpu-03".try_into().unwrap())];
    });
    for (identity, name) in [(&by_dns, "gpu-01.example"), (&by_name, "gpu-02"), (&by_uri, "gpu-03")] {
        let mut stream = aggregator.stream(Some(identity)).await.unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let path = format!("/api/v1/nodes/{name}");
        let answer = aggregator.call("GET", &path, Some(&aggregator.admin), None).await;
        assert_eq!(answer.json()["connected"], true, "{answer:?}");
        let refused = stream.renew().await.err().unwrap();
        assert!(refused.contains("your own CA"), "{refused}");
    }
    let two = node(&client_ca, |p| p.subject_alt_names = vec![dns("a"), dns("b")]);
    assert!(aggregator.stream(Some(&two)).await.is_err(), "two DNS names and no other");
    let stranger = node(&ca("strangers"), |p| p.subject_alt_names = vec![dns("gpu-01.example")]);
    assert!(aggregator.stream(Some(&stranger)).await.is_err(), "another CA");

    let refused =
        aggregator.call("POST", "/api/v1/tokens", Some(&aggregator.admin), Some(json!({"node": "a"}))).await;
    assert_eq!(refused.status, 409, "no enrolment: {refused:?}");

    let stream = aggregator.stream(Some(&by_dns)).await.unwrap();
    let path = "/api/v1/nodes/gpu-01.example/revoke";
    assert_eq!(aggregator.call("POST", path, Some(&aggregator.admin), None).await.status, 200);
    assert_eq!(stream.end().await, "revoked");
    let in_future = time::OffsetDateTime::now_utc() + time::Duration::seconds(2);
    let fresh = node(&client_ca, |p| {
        p.subject_alt_names = vec![dns("gpu-01.example")];
        p.not_before = in_future;
    });
    let authority = aggregator.authority.take();
    let mut aggregator = aggregator.restart().await;
    aggregator.authority = authority;
    while time::OffsetDateTime::now_utc() < in_future + time::Duration::seconds(1) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(aggregator.stream(Some(&by_dns)).await.is_err());
    assert!(aggregator.stream(Some(&fresh)).await.is_err(), "the CA alone does not let it in again");
    let path = "/api/v1/nodes/gpu-01.example/readmit";
    assert_eq!(aggregator.call("POST", path, Some(&aggregator.admin), None).await.status, 200);
    assert!(aggregator.stream(Some(&by_dns)).await.is_err(), "the old certificate stays out");
    aggregator.stream(Some(&fresh)).await.unwrap();
}

#[tokio::test]
async fn changed_files_are_read_again_and_broken_ones_are_not() {
    let files = tempfile::tempdir().unwrap();
    let (first, second) = (ca("first"), ca("second"));
    let mut aggregator = Aggregator::with(|config| configure(config, files.path(), &first, &first)).await;
    aggregator.authority = Some(first.der().clone());
    let old = node(&first, |p| p.subject_alt_names = vec![dns("a")]);
    let new = node(&second, |p| p.subject_alt_names = vec![dns("a")]);
    drop(aggregator.stream(Some(&old)).await.unwrap());

    write(&files.path().join("server.pem"), "broken");
    aggregator.reload.notify_one();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    drop(aggregator.stream(Some(&old)).await.unwrap());

    configure(&mut Config::default(), files.path(), &second, &second);
    aggregator.reload.notify_one();
    aggregator.authority = Some(second.der().clone());
    let deadline = std::time::Instant::now() + crate::fixture::DEADLINE;
    while aggregator.stream(Some(&new)).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "the changed files are not used");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(aggregator.stream(Some(&old)).await.is_err(), "the CA before is trusted still");
}
