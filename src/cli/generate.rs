//! Completions and man pages, from the same definitions as parsing and help.

use std::{fs, io, path::Path};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use serde_json::json;

use crate::cli::{
    args::{CommandLine, ShellName},
    cluster::shown,
    failure::{Failure, Outcome},
    output::Report,
};

/// `completions`.
///
/// # Errors
/// Never: it only writes down what is known.
pub fn completions(name: ShellName) -> Outcome {
    let shell = match name {
        ShellName::Bash => Shell::Bash,
        ShellName::Fish => Shell::Fish,
        ShellName::Zsh => Shell::Zsh,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "emccd", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let answer = json!({"shell": shell.to_string(), "script": script});
    Ok(Report::new(script, &answer))
}

/// `man`.
///
/// # Errors
/// A folder that can't be written.
pub fn man(folder: &Path) -> Outcome {
    let written = write_pages(folder).map_err(|cause| {
        Failure::from_error(
            format!("cannot write the man pages to {}", shown(folder)),
            &cause,
            "name a folder where you may write: emccd man --out DIR",
        )
    })?;
    let text = format!(
        "wrote {} pages to {}\n\nnext: man {}",
        written.len(),
        shown(folder),
        shown(&folder.join("emccd.1"))
    );
    let answer = json!({"folder": shown(folder), "pages": written});
    Ok(Report::new(text, &answer))
}

fn write_pages(folder: &Path) -> io::Result<Vec<String>> {
    fs::create_dir_all(folder)?;
    let mut root = CommandLine::command().disable_help_subcommand(true);
    root.build();
    let mut written = Vec::new();
    write_page(folder, &root, "emccd", &mut written)?;
    Ok(written)
}

fn write_page(
    folder: &Path,
    command: &Command,
    name: &str,
    written: &mut Vec<String>,
) -> io::Result<()> {
    let page = format!("{name}.1");
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name)
        .source(concat!("emccd ", env!("CARGO_PKG_VERSION")))
        .manual("emccd")
        .render(&mut text)?;
    fs::write(folder.join(&page), text)?;
    written.push(page);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_page(folder, sub, &format!("{name}-{}", sub.get_name()), written)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(command: &Command, path: &str, all: &mut Vec<String>) {
        for sub in command.get_subcommands() {
            let path = format!("{path}-{}", sub.get_name());
            all.push(path.clone());
            leaves(sub, &path, all);
        }
    }

    #[test]
    fn every_command_has_a_page_with_its_options_and_examples() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("man");
        man(&out).unwrap();
        let mut names = vec!["emccd".to_owned()];
        leaves(&CommandLine::command(), "emccd", &mut names);
        assert!(names.len() > 40, "{names:?}");
        for name in &names {
            let text = fs::read_to_string(out.join(format!("{name}.1"))).unwrap();
            assert!(
                text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"),
                "{name}"
            );
            assert!(
                text.contains("EMCCD_SOCKET") && text.contains("EMCCD_CONFIG"),
                "{name} must name the variables, as help does"
            );
        }
        let set = fs::read_to_string(out.join("emccd-cluster-set.1")).unwrap();
        assert!(
            set.contains("allow\\-emcc") && set.contains("Examples:"),
            "{set}"
        );
        assert_eq!(fs::read_dir(&out).unwrap().count(), names.len());
    }

    #[test]
    fn a_folder_that_can_not_be_made_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let told = man(&dir.path().join("file/man")).unwrap_err().to_string();
        assert!(told.contains("emccd man --out DIR"), "{told}");
    }

    #[test]
    fn each_shell_knows_every_noun() {
        for shell in [ShellName::Bash, ShellName::Fish, ShellName::Zsh] {
            let script = completions(shell).unwrap().text;
            for word in CommandLine::command().get_subcommands() {
                assert!(
                    script.contains(word.get_name()),
                    "{shell:?}: {}",
                    word.get_name()
                );
            }
            assert!(
                script.contains("multiple") || script.contains("allow-emcc"),
                "{shell:?}"
            );
        }
    }

    #[test]
    fn bash_takes_the_script_and_completes_a_verb() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("emccd.bash");
        fs::write(&file, completions(ShellName::Bash).unwrap().text).unwrap();
        let (file, name) = (file.display(), "emccd");
        let script = format!(
            "set -e; source {file}; COMP_WORDS=({name} param re); COMP_CWORD=2; _{name} {name} re param; \
             echo \"${{COMPREPLY[@]}}\""
        );
        let output = std::process::Command::new("bash")
            .args(["-c", &script])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            said.trim(),
            "reset",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
