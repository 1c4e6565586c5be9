//! What goes over the wire: the generated messages and the way between them and the domain's own types.
//!
//! Nothing outside this module and the edges that speak gRPC handles a generated type.

pub mod federation;
mod malformed;
pub mod metadata;
pub mod status;
pub mod time;
pub mod unix;

pub use malformed::Malformed;

#[allow(
    missing_docs,
    missing_debug_implementations,
    clippy::all,
    clippy::restriction,
    clippy::pedantic,
    clippy::nursery,
    reason = "generated from proto/"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/wire.rs"));
    include!(concat!(env!("OUT_DIR"), "/redacted.rs"));
}

/// The messages, client and server of `emcc.federation.v1`.
pub mod pb {
    /// The same by its full name.
    pub use super::generated::emcc::federation::v1 as federation;
    pub use super::generated::emcc::federation::v1::*;
}

/// The messages, client and server of `emcc.admin.v1`.
pub use generated::emcc::admin::v1 as admin;

/// The messages, client and server of `emcc.join.v1`.
pub use generated::emcc::join::v1 as join;

/// What reflection tells about `emcc.federation.v1`: an encoded `FileDescriptorSet` with its imports.
pub const FEDERATION_DESCRIPTOR: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/federation.fds"));

/// What reflection tells about `grpc.health.v1`, for a second set beside [`FEDERATION_DESCRIPTOR`].
pub const HEALTH_DESCRIPTOR: &[u8] = tonic_health::pb::FILE_DESCRIPTOR_SET;

impl Drop for pb::LoginRequest {
    /// Wipes the PIN and the ticket, wherever the message ends.
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.pin.zeroize();
        self.ticket.zeroize();
    }
}

impl Drop for admin::ApplyFile {
    /// Wipes the text, which may hold PINs.
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.content.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_login_request_does_not_print_its_pin() {
        let mut request = pb::LoginRequest::default();
        request.pin = "48151623".to_owned();
        request.ticket = "4242424242".to_owned();
        let text = format!("{request:?}");
        assert!(text.starts_with("LoginRequest"), "{text}");
        assert!(!text.contains("4815") && !text.contains("4242"), "{text}");
    }

    #[test]
    fn the_descriptor_holds_the_federation_service_and_no_admin_one() {
        let set = prost_types::FileDescriptorSet::decode(FEDERATION_DESCRIPTOR).unwrap();
        let packages: Vec<_> = set
            .file
            .iter()
            .map(|file| file.package().to_owned())
            .collect();
        assert!(
            packages.contains(&"emcc.federation.v1".to_owned()),
            "{packages:?}"
        );
        assert!(
            packages.contains(&"google.protobuf".to_owned()),
            "{packages:?}"
        );
        assert!(
            !packages.iter().any(|name| name.contains("admin")),
            "{packages:?}"
        );
    }
}
