//! What is said: everything that comes back from anywhere is kept for the search.

use super::*;

/// Everything that came back from anywhere.
#[derive(Clone, Default)]
pub(super) struct Heard(pub(super) Arc<Mutex<Vec<Answer>>>);

/// Who said it, and what.
pub(super) type Answer = (String, Vec<u8>);

impl Heard {
    pub(super) fn bytes(&self, from: &str, bytes: impl Into<Vec<u8>>) {
        self.0.lock().unwrap().push((from.to_owned(), bytes.into()));
    }

    pub(super) fn debug(&self, from: &str, value: &impl Debug) {
        self.bytes(from, format!("{value:?}\n{value:#?}"));
    }

    pub(super) fn error(&self, from: &str, outcome: anyhow::Result<impl Debug>) {
        let error = outcome.expect_err(from);
        self.bytes(from, format!("{error}\n{error:#}\n{error:?}"));
    }
}

/// Runs the command line and keeps what it prints. Whether it succeeds is not of interest; that it ends is, and
/// that it was understood: what is refused as wrong usage shows nothing of what it would have said.
pub(super) async fn command(heard: &Heard, member: &Member, line: &str, args: &[&Path]) {
    let mut command = tokio::process::Command::new(binary());
    command
        .arg("--config")
        .arg(&member.config)
        .args(line.split_whitespace())
        .args(args);
    command
        .env("EMCCD_LOG", "trace")
        .env("RUST_BACKTRACE", "1")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output())
        .await
        .expect(line)
        .unwrap();
    assert!(
        !(output.stdout.is_empty() && output.stderr.is_empty()),
        "{line} says nothing"
    );
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "{line}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    heard.bytes(line, output.stdout);
    heard.bytes(line, output.stderr);
}

/// One request as bytes, over TLS or in the clear to the same port; all that comes back.
pub(super) async fn raw_http(heard: &Heard, member: &Member, tls: bool, request: &str) {
    let address = member.addresses.phone.trim_start_matches("https://");
    let stream = TcpStream::connect(address).await.unwrap();
    if !tls {
        return exchange(heard, stream, request).await;
    }
    let config = client_config(&member.ca_file, None, rustls::DEFAULT_VERSIONS);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    exchange(
        heard,
        connector
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
            .unwrap(),
        request,
    )
    .await;
}

pub(super) async fn exchange(
    heard: &Heard,
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    request: &str,
) {
    let mut answer = Vec::new();
    // The other side may hang up in the middle: that is an answer too.
    let talk = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        stream.read_to_end(&mut answer).await
    };
    let ended = tokio::time::timeout(Duration::from_secs(15), talk).await;
    heard.bytes("HTTP", format!("{ended:?}"));
    heard.bytes("HTTP", answer);
}

/// Sends bytes as they are in place of a message.
pub(super) struct AsTheyAre;

impl Codec for AsTheyAre {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsTheyAre {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for AsTheyAre {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, tonic::Status> {
        let left = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, left).to_vec()))
    }
}
