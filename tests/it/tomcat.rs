//! A real Apache Tomcat with a key store and a trust store that we wrote: mutual TLS with an identity of ours. In short
//! runs the stores are written and read back; with `--long` Tomcat serves with them.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use emccd::{
    clock::Clock,
    domain::ids::ClusterId,
    secret::Secret,
    trust::{
        TrustStore,
        bundle::Bundle,
        certificate::Certificate,
        formats::{self, Entry, Format, Keys},
        identity::Identity,
        make::{self, CertRequest, KeyKind, Made},
        verifier::VerdictSlot,
    },
};
use rustls_pki_types::{PrivatePkcs8KeyDer, ServerName, pem::PemObject as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{is_long, until};

const PASSWORD: &str = "geheim-123";
const HOME: &str = "/usr/share/tomcat10";

fn made(name: &str, kind: KeyKind) -> Made {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    make::self_signed(&CertRequest::new(
        name,
        names,
        kind,
        Clock::system().now(),
        30,
    ))
    .unwrap()
}

fn certificate(made: &Made) -> Certificate {
    Certificate::from_der(&made.certificate_der).unwrap()
}

fn identity(made: &Made) -> Identity {
    Identity::from_pem(made.certificate_pem.as_bytes(), &made.key_pem).unwrap()
}

/// Tomcat in a folder of its own, ended with the test.
struct Tomcat {
    process: Child,
    port: u16,
}

impl Tomcat {
    fn start(base: &Path) -> Self {
        assert!(
            Path::new(HOME).join("bin/bootstrap.jar").exists(),
            "{HOME} is missing: run `tests/run --long --tools` once"
        );
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let connector = format!(
            r#"<Server port="-1"><Service name="Catalina">
<Connector address="127.0.0.1" port="{port}" SSLEnabled="true" scheme="https" secure="true">
<SSLHostConfig protocols="TLSv1.3" certificateVerification="required" truststoreFile="conf/trust.jks"
 truststoreType="JKS" truststorePassword="{PASSWORD}">
<Certificate certificateKeystoreFile="conf/key.p12" certificateKeystoreType="PKCS12"
 certificateKeystorePassword="{PASSWORD}" certificateKeyAlias="tomcat"/>
</SSLHostConfig></Connector>
<Engine name="Catalina" defaultHost="localhost"><Host name="localhost" appBase="webapps"/></Engine>
</Service></Server>"#
        );
        std::fs::write(base.join("conf/server.xml"), connector).unwrap();
        for folder in ["logs", "temp", "webapps", "work"] {
            std::fs::create_dir(base.join(folder)).unwrap();
        }
        let log = std::fs::File::create(base.join("out")).unwrap();
        let process = Command::new("java")
            .arg(format!("-Dcatalina.home={HOME}"))
            .arg(format!("-Dcatalina.base={}", base.display()))
            .arg(format!("-Djava.io.tmpdir={}", base.join("temp").display()))
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!(
                "{HOME}/bin/bootstrap.jar:{HOME}/bin/tomcat-juli.jar"
            ))
            .args(["org.apache.catalina.startup.Bootstrap", "start"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, port }
    }

    /// Asks for a page as this client; what comes back, or why nothing does.
    async fn ask(&self, client: &TrustStore) -> Result<String, String> {
        let slot = VerdictSlot::default();
        let wanted = ClusterId::new("tomcat").unwrap();
        let config = client.snapshot().client_config(&wanted, slot).unwrap();
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await;
        let tcp = tcp.map_err(|error| error.to_string())?;
        let name = ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tls = connector.connect(name, tcp).await;
        let mut tls = tls.map_err(|error| error.to_string())?;
        assert_eq!(
            tls.get_ref().1.protocol_version(),
            Some(rustls::ProtocolVersion::TLSv1_3)
        );
        let asked =
            tls.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        asked.await.map_err(|error| error.to_string())?;
        let mut page = Vec::new();
        tls.read_to_end(&mut page)
            .await
            .map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }
}

impl Drop for Tomcat {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn client(showing: &Made, server: &Made) -> TrustStore {
    let trust = TrustStore::new(Some(identity(showing)), Clock::system());
    let pinned = Bundle {
        pinned: vec![certificate(server)],
        ..Bundle::new(ClusterId::new("tomcat").unwrap())
    };
    trust.publish_bundles(vec![pinned]).unwrap();
    trust
}

#[tokio::test(flavor = "multi_thread")]
async fn tomcat_serves_mutual_tls_with_stores_that_we_wrote() {
    let (server, ours) = (
        made("tomcat", KeyKind::Rsa2048),
        made("berlin", KeyKind::P256),
    );
    let base = tempfile::tempdir().unwrap();
    let conf = base.path().join("conf");
    std::fs::create_dir(&conf).unwrap();
    let password = Secret::new(PASSWORD.as_bytes().to_vec());
    let key = PrivatePkcs8KeyDer::from_pem_slice(server.key_pem.expose()).unwrap();
    let key_entry = Entry {
        alias: Some("tomcat".to_owned()),
        chain: vec![certificate(&server)],
        key: Some(Secret::new(key.secret_pkcs8_der().to_vec())),
    };
    let trusted = Entry::trusted(Some("berlin/pinned/berlin".to_owned()), certificate(&ours));
    for (file, format, entry) in [
        ("key.p12", Format::Pkcs12, key_entry),
        ("trust.jks", Format::Jks, trusted),
    ] {
        let written =
            formats::write(format, std::slice::from_ref(&entry), Some(&password)).unwrap();
        let read = formats::read_with(&written, Some(&password), Keys::Open(None)).unwrap();
        assert_eq!(read.entries[0].chain, entry.chain);
        std::fs::write(conf.join(file), written).unwrap();
    }
    if !is_long() {
        return;
    }
    let tomcat = Tomcat::start(base.path());
    let client_of = client(&ours, &server);
    let page = until(Duration::from_secs(60), "Tomcat's page", async || {
        tomcat.ask(&client_of).await.map_err(|error| {
            let log = std::fs::read_to_string(base.path().join("out")).unwrap();
            format!("{error}; Tomcat: {log}")
        })
    })
    .await;
    assert!(
        page.starts_with("HTTP/1.1 404") && page.contains("Tomcat"),
        "{page}"
    );

    // One that is not in the trust store gets nothing.
    let stranger = client(&made("stranger", KeyKind::P256), &server);
    let refused = tomcat.ask(&stranger).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(
        tomcat
            .ask(&client_of)
            .await
            .unwrap()
            .starts_with("HTTP/1.1 404")
    );
}
