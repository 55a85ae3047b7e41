"use strict";
// Sends the token of a mailed link and a password to the hub that served this page, and says what came of it.
// The token is behind the #, which no browser sends to a server, and leaves the address bar at once.

const SENTENCES = {
  mail_proof_invalid: "This link is not good any more: it was used, or it is too old. Ask for another one.",
  malformed_input: "This link is not whole: copy all of it from the mail.",
  registration_password_wrong:
    "This is not the password that was chosen with this registration. If more than one mail came, try the other link.",
  passwords_busy: "Many people are here at this moment. Try again in a few seconds.",
  rate_limited: "Too many tries. Wait a few minutes, then try again.",
  database_away: "The hub cannot answer at this moment. Try again in a minute.",
};

const form = document.querySelector("form");
const button = document.querySelector("button");
const password = document.querySelector("#password");
const again = document.querySelector("#again");
const said = document.querySelector("#said");
const token = location.hash.slice(1);

function say(kind, sentence) {
  said.className = kind;
  said.textContent = sentence;
}

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    credentials: "omit",
    referrerPolicy: "no-referrer",
  });
  return [answer.ok, await answer.json()];
}

function refusal(problem) {
  if (problem.code === "password_too_weak") {
    return "This password is too easy to guess. " + problem.detail;
  }
  return SENTENCES[problem.code] || problem.title;
}

async function submit(event) {
  event.preventDefault();
  if (again && again.value !== password.value) {
    say("bad", "You typed two different passwords.");
    return;
  }
  button.disabled = true;
  say("", "One moment …");
  try {
    const [done, answer] = await post(form.dataset.to, { token, password: password.value });
    if (!done) {
      say("bad", refusal(answer));
      return;
    }
    form.hidden = true;
    say("good", form.dataset.done);
    if (answer.refresh_token) {
      // confirming signs in, which this page has no use for
      await post("sign-out", { refresh_token: answer.refresh_token }).catch(() => {});
    }
  } catch {
    say("bad", "The hub does not answer. Try again in a minute.");
  } finally {
    button.disabled = false;
  }
}

history.replaceState(null, "", location.pathname);
addEventListener("hashchange", () => location.reload()); // another link, opened in this tab
if (token) {
  form.addEventListener("submit", submit);
  form.hidden = false;
} else {
  say("bad", "Open this page by the link in the mail, all of it.");
}
