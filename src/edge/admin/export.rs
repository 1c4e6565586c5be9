//! `export`, in pieces: what a cluster holds may be larger than a message.

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::Status;

use crate::{
    apply::export::{Exported, Format, export},
    clock::Timestamp,
    edge::admin::{error::Error, roles::Actor},
    store::{Store, audit},
    wire::admin as pb,
};

/// What a caller reads piece by piece.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<pb::ExportResponse, Status>> + Send>>;

/// Writes everything and puts on record that it was given out.
///
/// # Errors
/// [`Error::Invalid`] when there is no such format.
pub async fn all(
    store: &Store,
    request: &pb::ExportRequest,
    actor: &Actor,
    now: Timestamp,
) -> Result<Pieces, Error> {
    let format = Format::named(&request.format)
        .ok_or_else(|| Error::invalid("the format", "toml or csv"))?;
    let files = export(store, format).await?;
    let entry = audit::Entry {
        at: now,
        actor: actor.to_string(),
        action: audit::Action::DataExport,
        subject: "data".to_owned(),
        outcome: told(&files),
        reference: None,
    };
    store.write(move |tx| audit::append(tx, &entry)).await?;
    Ok(Box::pin(tokio_stream::iter(
        files.into_iter().flat_map(pieces).map(Ok),
    )))
}

fn told(files: &[Exported]) -> String {
    let told: Vec<_> = files
        .iter()
        .map(|file| format!("{}: {}", file.file, file.rows))
        .collect();
    told.join(", ")
}

fn pieces(file: Exported) -> impl Iterator<Item = pb::ExportResponse> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = file.text.get(at..).unwrap_or_default();
        if rest.is_empty() {
            return None;
        }
        let length = rest.floor_char_boundary(PIECE_BYTES);
        let piece = pb::ExportResponse {
            file: file.file.clone(),
            content: rest.get(..length).unwrap_or_default().to_owned(),
            records: if at == 0 { file.rows } else { 0 },
        };
        at += length;
        Some(piece)
    })
}

/// Far below the bound for a message.
const PIECE_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_between_characters_and_make_the_whole() {
        let text = "\u{e9}".repeat(PIECE_BYTES);
        let file = Exported {
            file: "users.toml".to_owned(),
            rows: 7,
            text: format!("x{text}").into(),
        };
        let pieces: Vec<_> = pieces(file).collect();
        assert_eq!(pieces.len(), 3);
        let records: Vec<_> = pieces.iter().map(|piece| piece.records).collect();
        assert_eq!(records, [7, 0, 0]);
        let whole: String = pieces.iter().map(|piece| piece.content.as_str()).collect();
        assert_eq!(whole, format!("x{text}"));
    }
}
