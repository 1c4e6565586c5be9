//! The listener for phones.

use super::*;

#[tokio::test]
async fn stalled_handshakes_delay_no_phone() {
    let leaf = Spec::new("phones.example").self_signed();
    let config = crate::trust::tls::phone_server_config(&leaf.identity()).unwrap();
    let tasks = Tasks::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Config {
        handshake_timeout: Duration::from_secs(60),
        ..Config::default()
    };
    let config = Arc::new(arc_swap::ArcSwap::from_pointee(config));
    let router = axum::Router::new();
    let places = Places::for_phones(limits.max_connections, limits.max_connections);
    let door = serve_http(
        listener,
        Some(config),
        router,
        tasks.clone(),
        places,
        limits,
    );
    tasks.spawn("phones", door);
    let mut stalled = Vec::new();
    for _ in 0..150 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(&[0x16]).await.unwrap();
        stalled.push(tcp);
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add(leaf.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(crate::trust::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    within(raw_tls_to(address, "phones.example", client))
        .await
        .unwrap();
    // And one that forgot the TLS is told so.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain
        .write_all(b"GET /emcc HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let answer = told(&mut plain).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("https"), "{answer}");
    within(tasks.shut_down(Duration::from_secs(10))).await;
}

#[tokio::test]
async fn phones_are_served_over_tls_and_in_the_clear() {
    use axum::extract::ConnectInfo;
    let router = axum::Router::new().route(
        "/who",
        axum::routing::get(|ConnectInfo(remote): ConnectInfo<SocketAddr>| async move {
            remote.ip().to_string()
        }),
    );
    let leaf = Spec::new("phones.example").self_signed();
    let config = crate::trust::tls::phone_server_config(&leaf.identity()).unwrap();
    let config = Arc::new(arc_swap::ArcSwap::from_pointee(config));
    let tasks = Tasks::default();
    let secure = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (secure_at, plain_at) = (secure.local_addr().unwrap(), plain.local_addr().unwrap());
    let limits = Config {
        header_timeout: Duration::from_millis(200),
        ..Config::default()
    };
    let places = Places::for_phones(limits.max_connections, limits.max_connections);
    tasks.spawn(
        "secure",
        serve_http(
            secure,
            Some(config),
            router.clone(),
            tasks.clone(),
            places.clone(),
            limits.clone(),
        ),
    );
    tasks.spawn(
        "plain",
        serve_http(plain, None, router, tasks.clone(), places, limits),
    );

    let get = b"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(leaf.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(crate::trust::tls::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tls = within(raw_tls_to(secure_at, "phones.example", client))
            .await
            .unwrap();
        tls.write_all(get).await.unwrap();
        let mut answer = String::new();
        drop(within(tls.read_to_string(&mut answer)).await);
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("127.0.0.1"),
            "{answer}"
        );
    }
    let mut tcp = TcpStream::connect(plain_at).await.unwrap();
    tcp.write_all(get).await.unwrap();
    let mut answer = String::new();
    within(tcp.read_to_string(&mut answer)).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("127.0.0.1"),
        "{answer}"
    );

    // Half a request does not hold a connection for ever.
    let mut tcp = TcpStream::connect(plain_at).await.unwrap();
    tcp.write_all(b"GET /who HT").await.unwrap();
    let mut rest = Vec::new();
    drop(within(tcp.read_to_end(&mut rest)).await);
    within(tasks.shut_down(Duration::from_secs(10))).await;
}

#[tokio::test]
async fn a_node_that_drains_serves_and_asks_for_no_second_request() {
    let router = axum::Router::new().route("/", axum::routing::get(|| async { "here" }));
    let tasks = Tasks::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Config::default();
    let draining = limits.draining.clone();
    let places = Places::for_phones(8, 8);
    let door = serve_http(listener, None, router, tasks.clone(), places, limits);
    tasks.spawn("plain", door);
    let ask = async |tcp: &mut TcpStream| {
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
    };
    let mut kept = TcpStream::connect(address).await.unwrap();
    ask(&mut kept).await;
    let mut first = [0; 1024];
    let read = within(kept.read(&mut first)).await.unwrap();
    let first = String::from_utf8_lossy(&first[..read]).to_lowercase();
    assert!(
        first.ends_with("here") && !first.contains("connection: close"),
        "{first}"
    );
    let mut second = TcpStream::connect(address).await.unwrap();
    ask(&mut second).await;
    let mut answer = [0; 1024];
    assert!(within(second.read(&mut answer)).await.unwrap() > 0);
    draining.cancel();
    // On connections that there are: answered, and closed by us.
    for mut tcp in [kept, second] {
        ask(&mut tcp).await;
        let mut answer = String::new();
        within(tcp.read_to_string(&mut answer)).await.unwrap();
        let answer = answer.to_lowercase();
        assert!(
            answer.ends_with("here") && answer.contains("connection: close"),
            "{answer}"
        );
    }
    within(tasks.shut_down(Duration::from_secs(10))).await;
}
