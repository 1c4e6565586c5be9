//! The command `emccd lab`: start, say where everything is, drive the phones, and stay up where asked to.

use std::{io::Write, path::PathBuf, time::Instant};

use anyhow::{Result, bail};

use super::{
    Hosting, Lab, Spec,
    ready::Ready,
    report::{Step, Style, render},
    scenario,
};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many clusters.
    pub clusters: usize,
    /// Nodes of each.
    pub nodes: usize,
    /// End after the steps, with their result.
    pub once: bool,
    /// How to print.
    pub style: Style,
    /// Nodes in processes of their own, of this binary.
    pub processes: Option<PathBuf>,
    /// Folder with one `apply` file per cluster.
    pub data: Option<PathBuf>,
}

/// How a lab ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every step went as expected.
    AsExpected,
    /// At least one did not.
    Surprises(usize),
    /// It was asked to end before all steps were carried out.
    Interrupted,
}

/// Runs a lab. Lines go to `out`; `ended` completes when the lab is to end.
///
/// # Errors
/// When the lab can't be built, or `out` can't be written.
pub async fn run(
    options: &Options,
    out: &mut (dyn Write + Send),
    ended: impl Future<Output = ()>,
) -> Result<Outcome> {
    if options.clusters == 0 || options.nodes == 0 {
        bail!("a lab has at least one cluster of one node");
    }
    let spec = Spec {
        clusters: options.clusters,
        nodes: options.nodes,
        hosting: options
            .processes
            .clone()
            .map_or(Hosting::InProcess, |binary| Hosting::Processes { binary }),
        data: options.data.clone(),
        ..Spec::default()
    };
    let began = Instant::now();
    let mut lab = Lab::start(&spec).await?;
    announce(&lab, began, options.style, out)?;
    let mut surprises = 0;
    let mut ended = std::pin::pin!(ended);
    let mut interrupted = false;
    let mut steps = scenario::steps(&lab);
    while let Some(next) = steps.pop_front() {
        let step = tokio::select! {
            biased;
            () = &mut ended => {
                interrupted = true;
                break;
            }
            step = scenario::carry_out(&mut lab, next) => step,
        };
        surprises += usize::from(!step.ok);
        writeln!(out, "{}", render(&step, options.style))?;
        out.flush()?;
    }
    if !options.once && !interrupted {
        if options.style == Style::Text {
            writeln!(out, "{}", invitation(&lab))?;
            out.flush()?;
        }
        ended.await;
    }
    lab.shut_down().await;
    Ok(match surprises {
        // Ended on purpose while it was to stay up: what was shown was as expected.
        0 if interrupted && options.once => Outcome::Interrupted,
        0 => Outcome::AsExpected,
        count => Outcome::Surprises(count),
    })
}

fn announce(lab: &Lab, began: Instant, style: Style, out: &mut (dyn Write + Send)) -> Result<()> {
    match style {
        Style::Json => writeln!(out, "{}", serde_json::to_string(&Ready::of(lab))?)?,
        Style::Text => {
            let step = Step::done("ready", began.elapsed());
            writeln!(out, "{}", render(&step, style))?;
            for cluster in &lab.clusters {
                for member in &cluster.members {
                    let at = &member.addresses;
                    writeln!(
                        out,
                        "          {} {}: phones {}, peers {}",
                        cluster.id, member.name, at.phone, at.federation
                    )?;
                }
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// What there is to play with.
fn invitation(lab: &Lab) -> String {
    let mut text = String::from(
        "\nThe federation stays up until you press Ctrl-C or close standard input. Try:\n",
    );
    for cluster in &lab.clusters {
        let (Ok(member), Ok(user), Ok(phone)) = (
            cluster.member(),
            cluster.data.user(0),
            cluster.data.phone(0),
        ) else {
            continue;
        };
        let socket = member.addresses.admin.display();
        text.push_str(&format!(
            "\n  {}\n    emccd cluster status --socket {socket}\n    emccd session list --socket {socket}\n    \
             curl --cacert {} '{}/emapp/EMAppServlet?device={}&EMCC=true'\n    user {} has PIN {}\n",
            cluster.id,
            cluster.authority.file.display(),
            member.addresses.phone,
            phone.name,
            user.user_id,
            user.pin
        ));
    }
    text
}
