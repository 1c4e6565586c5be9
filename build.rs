//! Turns every `.proto` under `proto/` into Rust, without a protoc binary.
//!
//! What a message's type can't say is added here: a message with a secret in it has no derived `Debug`, and
//! what the admin socket answers can be printed as JSON.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use protox::prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

/// The last word of a field's name that makes a text or bytes field a secret.
const SECRET_WORDS: [&str; 8] = [
    // Of a file to apply, which may hold PINs.
    "content",
    "pin",
    "password",
    "passphrase",
    "phc",
    "pem_key",
    "ticket",
    "secret",
];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    let mut files = Vec::new();
    find_protos(Path::new("proto"), &mut files)?;
    files.sort();
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let is_federation = |file: &PathBuf| file.starts_with("proto/emcc/federation");
    let federation: Vec<_> = files.iter().filter(|file| is_federation(file)).collect();
    fs::write(
        out.join("federation.fds"),
        compiler(&federation)?.encode_file_descriptor_set(),
    )?;

    let all = compiler(&files)?;
    let pool = all.descriptor_pool();
    fs::write(out.join("redacted.rs"), redacted_debug(&pool)?)?;

    let mut builder = tonic_prost_build::configure()
        .include_file("wire.rs")
        .emit_rerun_if_changed(false)
        .btree_map(".")
        .skip_debug(
            messages(&pool)
                .filter(has_secret)
                .map(|message| path_of(&message)),
        )
        .message_attribute(".emcc.admin", "#[derive(serde::Serialize)]")
        .enum_attribute(".emcc.admin", "#[derive(serde::Serialize)]");
    for message in messages(&pool).filter(|m| m.package_name().starts_with("emcc.admin")) {
        for field in message.fields() {
            if is_secret(&field) {
                let path = format!("{}.{}", path_of(&message), field.name());
                builder = builder.field_attribute(path, "#[serde(skip)]");
            }
        }
    }
    builder.compile_fds(all.file_descriptor_set())?;
    Ok(())
}

fn find_protos(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            println!("cargo:rerun-if-changed={}", path.display());
            find_protos(&path, found)?;
        } else if path.extension().is_some_and(|ending| ending == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

/// Source information stays in: it becomes the documentation of the generated types and of reflection.
fn compiler<P: AsRef<Path>>(files: &[P]) -> Result<protox::Compiler, protox::Error> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(files)?;
    Ok(compiler)
}

fn messages(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> + '_ {
    pool.all_messages()
        .filter(|message| message.package_name().starts_with("emcc.") && !message.is_map_entry())
}

fn path_of(message: &MessageDescriptor) -> String {
    format!(".{}", message.full_name())
}

fn has_secret(message: &MessageDescriptor) -> bool {
    message.fields().any(|field| is_secret(&field))
}

fn is_secret(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::String | Kind::Bytes)
        && SECRET_WORDS
            .iter()
            .any(|word| field.name() == *word || field.name().ends_with(&format!("_{word}")))
}

/// `Debug` for the messages that hold a secret: the name and nothing else.
fn redacted_debug(pool: &DescriptorPool) -> Result<String, Failure> {
    let mut code = String::new();
    for message in messages(pool).filter(has_secret) {
        if message.parent_message().is_some() {
            return Err(format!("{}: a secret in a nested message", message.full_name()).into());
        }
        let module = message.package_name().replace('.', "::");
        let name = message.name();
        code += &format!(
            "impl ::core::fmt::Debug for {module}::{name} {{\n\
             fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n\
             f.debug_struct(\"{name}\").finish_non_exhaustive()\n}}\n}}\n"
        );
    }
    Ok(code)
}
