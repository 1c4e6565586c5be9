//! Writes `docs/parameters.md` from the table. Pure.

use std::fmt::Write as _;

use crate::domain::parameters::{NOT_TAKEN_OVER, TABLE};

/// The reference page.
#[must_use]
pub fn markdown() -> String {
    let mut out = "# Parameters\n\n\
        <!-- Rendered from src/domain/parameters/table.rs; `UPDATE_GOLDEN=1 cargo test --lib parameters` writes it anew. -->\n\n\
        What a whole cluster goes by. Parameters are in the store, not in a node's file: a change is in force on every \
        node within a second, and needs no restart. What belongs to one node is in its [configuration](config.md).\n"
        .to_owned();
    for parameter in TABLE {
        let _ = write!(
            out,
            "\n## `{}`\n\n{}\n\n- Default: `{}`, because {}\n- Allowed: {}\n- Since: 0.1.0\n",
            parameter.name,
            parameter.meaning,
            parameter.default,
            parameter.why,
            parameter.kind.allowed(),
        );
        if !parameter.replaces.is_empty() {
            let _ = writeln!(out, "- Replaces: {}", parameter.replaces);
        }
    }
    out.push_str(
        "\n## Not taken over\n\nParameters that operators may look for, and that are not here.\n\n\
         | name | because |\n|---|---|\n",
    );
    for left_out in NOT_TAKEN_OVER {
        let _ = writeln!(out, "| `{}` | {} |", left_out.name, left_out.why);
    }
    out
}
