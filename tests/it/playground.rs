//! The playground, driven in a real headless Chromium over the DevTools protocol.
//!
//! The browser is `SAFELMM_TEST_CHROMIUM` or the first of `chromium`, `chromium-browser`, `google-chrome` on the path;
//! without one these tests say so and pass.

mod browser;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::TestApp;
use browser::Page;

const IDLE: &str = "document.querySelector('#stop').ariaDisabled === 'true'";
const WRITTEN: &str = "document.querySelector('#output .written')?.textContent ?? ''";
const STATUS: &str = "document.querySelector('#status').textContent";

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_streams_in_at_the_chosen_rating() -> Result<()> {
    let app = TestApp::start().await;
    let Some(mut page) = Page::open(&app.base).await? else { return Ok(()) };
    page.fill("#prompt", "The <i>harbour</i> 'was' quiet").await?;
    page.fill("#max_tokens", "24").await?;
    page.fill("#seed", "7").await?;
    page.click("#ratings input[value=PG]").await?;
    let command = page.text("document.querySelector('#curl').textContent").await?;
    page.click("#generate").await?;
    page.wait_for(&format!("{IDLE} && {STATUS}.includes('finish: ')")).await?;

    let status = page.text(STATUS).await?;
    ensure!(!page.text(WRITTEN).await?.is_empty(), "no text was written; status: {status}");
    for part in ["first token", "rating PG", "seed 7"] {
        ensure!(status.contains(part), "the status line {status:?} does not say {part:?}");
    }
    let tokens: usize = status.split(' ').next().unwrap_or_default().parse().with_context(|| status.clone())?;
    ensure!((1..=24).contains(&tokens), "the status line {status:?} counts {tokens} tokens of at most 24");

    let sent = page.sent("/v1/completions");
    ensure!(sent.len() == 1, "one request was expected: {sent:?}");
    ensure!(sent[0]["safelmm"]["rating"] == "PG" && sent[0]["seed"] == 7 && sent[0]["stream"] == true, "{}", sent[0]);
    // The command offered for copying carries the very same request, quoted for a shell.
    let quoted = command.split_once("-d '").and_then(|(_, rest)| rest.strip_suffix('\'')).context(command.clone())?;
    ensure!(quoted.contains(r"'\''was'\''"), "quotes of the prompt are not escaped: {command}");
    ensure!(
        serde_json::from_str::<Value>(&quoted.replace(r"'\''", "'"))? == sent[0],
        "{command}\ndiffers from {}",
        sent[0]
    );

    ensure!(page.text("String(document.querySelectorAll('#output i').length)").await? == "0", "a text became markup");
    page.no_problems().await
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_a_long_answer_and_keeps_what_came() -> Result<()> {
    let app = TestApp::start().await;
    let Some(mut page) = Page::open(&app.base).await? else { return Ok(()) };
    page.slow_network().await?;
    page.fill("#prompt", "Long ago").await?;
    for stop_by_key in [false, true] {
        page.press("Enter", 2).await?;
        page.wait_for(&format!("({WRITTEN}).length > 0")).await?;
        ensure!(
            !page.holds(IDLE).await?,
            "the answer was over before it could be stopped: {}",
            page.text(STATUS).await?
        );
        if stop_by_key {
            page.press("Escape", 0).await?;
        } else {
            page.click("#stop").await?;
        }
        page.wait_for(IDLE).await?;
        let status = page.text(STATUS).await?;
        ensure!(status.contains("finish: stopped"), "stopped answers are marked as such: {status:?}");
        let written = page.text(WRITTEN).await?;
        sleep(Duration::from_millis(500)).await;
        ensure!(!written.is_empty() && written == page.text(WRITTEN).await?, "text came in after the stop");
    }
    ensure!(page.holds("document.querySelector('#error').hidden").await?, "stopping is shown as an error");
    page.no_problems().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_shown_with_what_to_do() -> Result<()> {
    let app = TestApp::start().await;
    let Some(mut page) = Page::open(&app.base).await? else { return Ok(()) };
    let error = "document.querySelector('#error').innerText";
    page.fill("#prompt", "A lighthouse").await?;
    page.fill("#max_tokens", "999999").await?;
    page.click("#generate").await?;
    page.wait_for(&format!("{IDLE} && !document.querySelector('#error').hidden")).await?;
    let shown = page.text(error).await?;
    ensure!(shown.contains("maximum context length") && shown.contains("Max tokens"), "{shown:?}");

    // The next request clears it.
    page.fill("#max_tokens", "4").await?;
    page.click("#generate").await?;
    page.wait_for(&format!("{IDLE} && document.querySelector('#error').hidden && {STATUS}.includes('finish')")).await?;
    page.no_problems().await
}

#[tokio::test(flavor = "multi_thread")]
async fn comparing_asks_the_same_at_every_rating() -> Result<()> {
    let app = TestApp::start().await;
    let Some(mut page) = Page::open(&app.base).await? else { return Ok(()) };
    page.fill("#prompt", "In the cellar").await?;
    page.fill("#max_tokens", "8").await?;
    page.click("#compare").await?;
    page.wait_for(&format!("{IDLE} && document.querySelectorAll('.column').length === 4")).await?;
    let offered =
        page.text("radios('rating').filter((radio) => !radio.disabled).map((radio) => radio.value).join()").await?;
    ensure!(offered.starts_with("G,PG"), "{offered:?}");
    for rating in offered.split(',') {
        let column = format!("document.querySelector('.column[data-rating={rating}]').innerText");
        let shown = page.text(&column).await?;
        ensure!(shown.contains("finish: ") && shown.contains(&format!("rating {rating}")), "{shown:?}");
    }
    let mut sent = page.sent("/v1/completions");
    let ratings: Vec<Value> = sent.iter_mut().map(|body| body["safelmm"]["rating"].take()).collect();
    ensure!(ratings == offered.split(',').collect::<Vec<_>>(), "{ratings:?} were asked for, {offered:?} are offered");
    ensure!(
        sent[0]["seed"].is_u64() && sent.iter().all(|body| *body == sent[0]),
        "only the rating may differ: {sent:?}"
    );
    page.no_problems().await
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_survive_a_reload_and_a_narrow_page_does_not_scroll_sideways() -> Result<()> {
    let app = TestApp::start().await;
    let Some(mut page) = Page::open(&app.base).await? else { return Ok(()) };
    page.click("#ratings input[value=PG]").await?;
    page.fill("#max_tokens", "33").await?;
    page.click("#dice").await?;
    let settings = "[document.querySelector('#ratings input:checked').value, max_tokens.value, seed.value].join()";
    let before = page.text(settings).await?;
    ensure!(before.starts_with("PG,33,") && before.len() > "PG,33,".len(), "{before:?}");
    page.call(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": true}),
    )
    .await?;
    page.load(&app.base).await?;
    let after = page.text(settings).await?;
    ensure!(before == after, "{before:?} became {after:?}");
    let width = page.text("String(document.documentElement.scrollWidth)").await?;
    ensure!(width == "360", "the page is {width} px wide on a screen of 360");
    page.no_problems().await
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_are_read_wherever_they_are_cut() -> Result<()> {
    let app = TestApp::start().await;
    let Some(mut page) = Page::open(&app.base).await? else { return Ok(()) };
    let results = page
        .text(
            r#"(() => {
                const bytes = new TextEncoder().encode(
                    ': note\r\n\r\ndata: {"a":"\u00e9\u{1f986}"}\r\n\r\nevent: x\ndata:one\r\ndata:  two\r\n\r\ndata: cr\r\rdata\n\nid: 1\n\ndata: lost');
                const results = new Set();
                for (let size = 1; size <= bytes.length; size += 1) {
                    const seen = [];
                    const parser = new SseParser((data) => seen.push(data));
                    for (let at = 0; at < bytes.length; at += size) parser.push(bytes.slice(at, at + size));
                    parser.end();
                    results.add(JSON.stringify(seen));
                }
                return [...results].join('|');
            })()"#,
        )
        .await?;
    let expected = json!(["{\"a\":\"é🦆\"}", "one\n two", "cr", ""]);
    ensure!(serde_json::from_str::<Value>(&results).ok() == Some(expected), "{results}");
    page.no_problems().await
}

/// Answers that a well-behaved model seldom gives, from a `fetch` of our own in the page.
#[tokio::test(flavor = "multi_thread")]
async fn markup_stays_text_and_every_failure_is_explained() -> Result<()> {
    let app = TestApp::start().await;
    let Some(mut page) = Page::open(&app.base).await? else { return Ok(()) };
    let markup = r#"data: {"choices":[{"text":"<b>bold</b><img src=x onerror=alert(1)>"}]}"#;
    let refusal = r#"{"error":{"message":"Not this.","param":null,"code":"content_policy_violation"}}"#;
    let cases = [
        (format!("new Response({:?})", format!("{markup}\n\ndata: [DONE]\n\n")), ""),
        (format!("new Response({:?})", format!("{markup}\n\n")), "The answer broke off."),
        (
            format!("new Response({:?})", "data: {\"error\":{\"message\":\"Out of memory.\"}}\n\n"),
            "Out of memory.\n\nTry again; the server",
        ),
        (format!("new Response({refusal:?}, {{status: 400}})"), "Not this.\n\nA policy of this server refused it."),
        ("new Response('{}', {status: 429, headers: {'Retry-After': '3'}})".into(), "Try again in 3 seconds."),
        (
            "new Response('', {status: 502, statusText: 'Bad Gateway'})".into(),
            "The server answered 502 Bad Gateway.\n\nTry again",
        ),
        (
            "Promise.reject(new TypeError('no route'))".into(),
            "The server cannot be reached.\n\nCheck that the server is running",
        ),
    ];
    for (answer, expected) in cases {
        page.evaluate(&format!(
            "window.fetch = () => Promise.resolve({answer}); document.querySelector('#status').textContent = ''"
        ))
        .await?;
        page.click("#generate").await?;
        page.wait_for(IDLE).await?;
        let shown = page.text("document.querySelector('#error').innerText").await?;
        let hidden = page.holds("document.querySelector('#error').hidden").await?;
        ensure!(
            hidden == expected.is_empty() && (hidden || shown.contains(expected)),
            "{answer} is shown as {shown:?}"
        );
        ensure!(
            !answer.contains("bold") || page.text(WRITTEN).await?.starts_with("<b>bold</b><img"),
            "{answer} lost its text"
        );
    }
    page.no_problems().await
}

/// With a `fetch` of our own, so that it needs no model with a chat template.
#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_along_until_it_is_cleared() -> Result<()> {
    let app = TestApp::start().await;
    let Some(mut page) = Page::open(&app.base).await? else { return Ok(()) };
    page.evaluate(
        r#"window.asked = [];
        window.fetch = (path, { body }) => {
            asked.push([path, ...JSON.parse(body).messages.map(({ role, content }) => `${role}: ${content}`)]);
            const frame = (choice) => `data: ${JSON.stringify({ choices: [choice] })}\n\n`;
            const first = frame({ delta: { role: 'assistant', content: `answer ${asked.length}` } });
            return Promise.resolve(new Response(`${first}${frame({ delta: {}, finish_reason: 'stop' })}data: [DONE]\n\n`));
        };"#,
    )
    .await?;
    page.click("input[value=chat]").await?;
    let messages = "[...document.querySelectorAll('.message')].map((message) => message.innerText).join(' / ')";
    for (question, answers) in [("one", 1), ("two", 2)] {
        page.fill("#prompt", question).await?;
        page.press("Enter", 2).await?;
        page.wait_for(&format!("{IDLE} && ({messages}).includes('answer {answers}')")).await?;
        ensure!(page.holds("document.querySelector('#prompt').value === ''").await?, "the question stays in the box");
    }
    let shown = page.text(messages).await?;
    ensure!(shown == "You\none / Model\nanswer 1 / You\ntwo / Model\nanswer 2", "{shown:?}");
    page.click("#clear").await?;
    page.wait_for(&format!("({messages}) === ''")).await?;
    page.fill("#prompt", "three").await?;
    page.click("#generate").await?;
    page.wait_for(&format!("{IDLE} && ({messages}).includes('answer 3')")).await?;
    let path = "/v1/chat/completions";
    let expected =
        json!([[path, "user: one"], [path, "user: one", "assistant: answer 1", "user: two"], [path, "user: three"],]);
    let asked = page.evaluate("asked").await?;
    ensure!(asked == expected, "{asked}");
    page.no_problems().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_security_policy_holds() -> Result<()> {
    let app = TestApp::start().await;
    let Some(mut page) = Page::open(&app.base).await? else { return Ok(()) };
    page.no_problems().await?;
    page.text("(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s); return ''; })()")
        .await?;
    ensure!(page.holds("window.ran === undefined").await?, "an inline script ran");
    // This also shows that `no_problems` would have seen a violation by the page itself.
    let Err(seen) = page.no_problems().await else { bail!("the violation was not noticed") };
    ensure!(seen.to_string().contains("Content Security Policy"), "{seen}");
    Ok(())
}
