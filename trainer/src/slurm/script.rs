//! The text of the batch script.

use std::path::Path;

use super::{JobRequest, SAVED, SlurmError, Word};

/// The script of a job that runs `command`, a program with its arguments, under the job's `name`. `jobs` is the file
/// that has the numbers of the chain's jobs, one a line.
///
/// # Errors
/// A path or an argument that a script cannot hold.
pub fn script(request: &JobRequest, name: &Word, jobs: &Path, command: &[String]) -> Result<String, SlurmError> {
    let options: String = [
        Some(format!("job-name={name}")),
        Some(format!("nodes={}", request.nodes)),
        Some(format!("ntasks-per-node={}", request.tasks_per_node)),
        request.gpus_per_node.as_ref().map(|gpus| format!("gpus-per-node={gpus}")),
        request.cpus_per_task.map(|cpus| format!("cpus-per-task={cpus}")),
        request.time.map(|time| format!("time={time}")),
        request.partition.as_ref().map(|partition| format!("partition={partition}")),
        request.account.as_ref().map(|account| format!("account={account}")),
        Some(format!("signal=B:USR1@{}", request.signal_seconds)),
        Some("requeue".to_owned()),
        Some("open-mode=append".to_owned()),
    ]
    .into_iter()
    .flatten()
    .map(|option| format!("#SBATCH --{option}\n"))
    .collect();
    let mpi = if request.tasks() > 1 { " --mpi=pmix" } else { "" };
    // srun does not take the number from the job (since SLURM 22.05), and threads not from srun.
    let (threads, cpus) = match request.cpus_per_task {
        Some(n) => (format!("export RAYON_NUM_THREADS={n}\n"), format!(" --cpus-per-task={n}")),
        None => (String::new(), String::new()),
    };
    let (later, after_an_error) = match request.jobs {
        1 => ("exec scontrol requeue \"$SLURM_JOB_ID\"".to_owned(), String::new()),
        _ => {
            let jobs = jobs.to_str().ok_or_else(|| SlurmError::NotUtf8(jobs.to_owned()))?;
            let rest = format!("sed \"1,/^$SLURM_JOB_ID\\$/d\" {}", quote(jobs)?);
            (
                "echo 'saved: the next job of the chain goes on, or the same submission'\n    exit 0".to_owned(),
                format!(
                    "# The jobs behind this one would meet the same error.\n\
                     [ \"$code\" -gt 128 ] || {rest} | xargs --no-run-if-empty scancel\n"
                ),
            )
        }
    };
    let command = command.iter().map(|word| quote(word)).collect::<Result<Vec<_>, _>>()?.join(" ");
    Ok(format!(
        r#"#!/bin/bash
# Written by `safelmm-train submit`.
{options}
{threads}srun{mpi}{cpus} {command} &
training=$!
# Near the time limit, or when the job is cancelled: the trainer ends its update, saves and exits. srun hands SIGUSR1 on
# to it; at SIGTERM it would end it.
trap 'again=1; kill -USR1 "$training"' USR1 TERM
# `wait` returns at a signal too.
while again=; wait "$training"; code=$?; [ -n "$again" ]; do :; done

if [ "$code" = 0 ]; then
    exit 0
fi
if [ "$code" = {SAVED} ]; then
    # A cancelled job does not run any more, and is not to come back.
    [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ] || exit "$code"
    {later}
fi
{after_an_error}exit "$code"
"#
    ))
}

/// A word as the shell reads it back.
fn quote(word: &str) -> Result<String, SlurmError> {
    Ok(shlex::try_quote(word).map_err(|_| SlurmError::Zero(word.to_owned()))?.into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn request(more: &[&str]) -> JobRequest {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            request: JobRequest,
        }
        <Line as clap::Parser>::parse_from([&["submit"], more].concat()).request
    }

    fn text(more: &[&str]) -> String {
        let command = ["train", "--out", "my run"].map(str::to_owned);
        script(&request(more), &Word::resembling("tiny"), Path::new("/logs/it's here/jobs"), &command).unwrap()
    }

    #[test]
    fn a_script_asks_for_what_was_asked_for() {
        let plain = text(&[]);
        for line in [
            "#SBATCH --job-name=tiny\n#SBATCH --nodes=1\n#SBATCH --ntasks-per-node=1\n#SBATCH --signal=B:USR1@180\n\
             #SBATCH --requeue\n#SBATCH --open-mode=append\n",
            "\nsrun train --out 'my run' &\n",
            "exec scontrol requeue \"$SLURM_JOB_ID\"\n",
            "if [ \"$code\" = 75 ]; then\n",
        ] {
            assert!(plain.contains(line), "no {line} in\n{plain}");
        }
        assert!(!plain.contains("scancel") && !plain.contains("mpi"));
        let whole = text(&[
            "--nodes=2",
            "--tasks-per-node=4",
            "--gpus-per-node=a100:4",
            "--cpus-per-task=8",
            "--time=1-0",
            "--partition=boost",
            "--account=project_1",
            "--jobs=3",
            "--signal-seconds=600",
        ]);
        for line in [
            "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\n#SBATCH --gpus-per-node=a100:4\n#SBATCH --cpus-per-task=8\n\
             #SBATCH --time=1-00:00:00\n#SBATCH --partition=boost\n#SBATCH --account=project_1\n\
             #SBATCH --signal=B:USR1@600\n",
            "\nexport RAYON_NUM_THREADS=8\nsrun --mpi=pmix --cpus-per-task=8 train --out 'my run' &\n",
            " \"/logs/it's here/jobs\" | xargs --no-run-if-empty scancel\n",
        ] {
            assert!(whole.contains(line), "no {line} in\n{whole}");
        }
        assert!(!whole.contains("scontrol"));
    }

    /// Anything, or much that shells take for something else.
    const WORD: &str = "[^\0]{0,12}|[ '\"$`\\\\!*\n;&|<>(){}~#=-]{0,12}";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever stands in a path or a setting, the program gets it as it was, and nothing else is run.
        #[test]
        fn the_shell_reads_every_word_back(words in prop::collection::vec(WORD, 1..8)) {
            let all = [vec!["printf".to_owned(), "%s\\0".to_owned()], words.clone()].concat();
            let line = all.iter().map(|word| quote(word).unwrap()).collect::<Vec<_>>().join(" ");
            let output = Command::new("bash").arg("-c").arg(line).output().unwrap();
            let read: Vec<String> =
                String::from_utf8(output.stdout).unwrap().split_terminator('\0').map(str::to_owned).collect();
            prop_assert_eq!(read, words);
        }
    }

    #[test]
    fn a_zero_byte_is_refused() {
        assert!(quote("a\0b").unwrap_err().to_string().contains("zero byte"));
    }
}
