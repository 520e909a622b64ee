//! The way of a script to `sbatch`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::SlurmError;

/// The script, in the folder of the logs.
pub const SCRIPT: &str = "job.sh";

/// The number that SLURM gave a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobId(String);

impl JobId {
    /// The number.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From the answer to `sbatch --parsable`: a number, and the cluster's name behind a `;` where there are several.
    fn read(answer: &str) -> Option<JobId> {
        let id = answer.trim().split(';').next().unwrap_or_default();
        let number = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
        number.then(|| JobId(id.to_owned()))
    }
}

/// Writes the script into `folder`, where the logs will lie too (`NUMBER.log`), and sends it `count` times; each job
/// begins when the one before it has ended, however that was. Their numbers come to stand in the file `jobs`, one a line.
/// Jobs work in the current folder.
///
/// # Errors
/// Where SLURM is absent, refuses or answers something else, with the jobs that were sent before.
pub fn send(script: &str, folder: &Path, jobs: &Path, count: u32) -> Result<Vec<JobId>, SlurmError> {
    let file_error = |file: &Path| {
        let file = file.to_owned();
        move |source: io::Error| SlurmError::File(file, source)
    };
    let output = log_pattern(folder)?;
    fs::create_dir_all(folder).map_err(file_error(folder))?;
    let file = folder.join(SCRIPT);
    fs::write(&file, script)
        .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)))
        .map_err(file_error(&file))?;
    let mut sent: Vec<JobId> = Vec::new();
    for _ in 0..count {
        let mut sbatch = Command::new("sbatch");
        sbatch.arg("--parsable").arg(&output);
        if let Some(before) = sent.last() {
            sbatch.arg(format!("--dependency=afterany:{}", before.as_str()));
        }
        let answer =
            sbatch.arg(&file).stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => SlurmError::Absent,
                _ => SlurmError::Start(e),
            })?;
        if !answer.status.success() {
            return Err(SlurmError::Refused { status: answer.status, sent });
        }
        let said = String::from_utf8_lossy(&answer.stdout).into_owned();
        let Some(id) = JobId::read(&said) else { return Err(SlurmError::Answer { said, sent }) };
        sent.push(id);
        let lines: String = sent.iter().map(|id| format!("{}\n", id.as_str())).collect();
        fs::write(jobs, lines).map_err(file_error(jobs))?;
    }
    Ok(sent)
}

/// The option for logs in this folder. `%` begins what sbatch fills in, and a `\` would switch that off.
fn log_pattern(folder: &Path) -> Result<OsString, SlurmError> {
    let text = folder.to_str().ok_or_else(|| SlurmError::NotUtf8(folder.to_owned()))?;
    if text.contains(['\\', '\n']) {
        return Err(SlurmError::Folder(folder.to_owned()));
    }
    let pattern: PathBuf = [&text.replace('%', "%%"), "%j.log"].iter().collect();
    let mut option = OsString::from("--output=");
    option.push(pattern);
    Ok(option)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_numbers_and_nothing_else() {
        for (answer, id) in [("123\n", Some("123")), ("7;leonardo\n", Some("7")), ("Submitted batch job 7\n", None)] {
            assert_eq!(JobId::read(answer).as_ref().map(JobId::as_str), id);
        }
        for answer in ["", "\n", ";x", "12 13", "-1", "1.0"] {
            assert_eq!(JobId::read(answer), None, "{answer}");
        }
    }

    #[test]
    fn logs_lie_in_the_folder_whatever_it_is_called() {
        assert_eq!(log_pattern(Path::new("/a/50% b")).unwrap(), "--output=/a/50%% b/%j.log");
        assert!(log_pattern(Path::new("/a\\b")).unwrap_err().to_string().contains("backslash"));
    }
}
