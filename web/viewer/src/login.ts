// The login page.
import { api, type User } from "./api";
import { h, replace, sentence } from "./dom";

export function showLogin(page: HTMLElement, onUser: (user: User) => void): void {
  const user = h("input", {
    id: "user",
    autocomplete: "username",
    required: true,
    "data-testid": "login-user",
  });
  const password = h("input", {
    id: "password",
    type: "password",
    autocomplete: "current-password",
    required: true,
    "data-testid": "login-password",
  });
  const problem = h("p", { class: "problem", role: "alert", "data-testid": "login-problem" });
  const submit = h("button", { class: "primary", type: "submit", "data-testid": "login-submit" }, "Log in");
  const form = h(
    "form",
    { class: "login" },
    h("img", { src: "/icon.svg", alt: "", width: 56, height: 56 }),
    h("h1", {}, "Pulmo"),
    h("p", { class: "subtitle" }, "Lung nodules on chest CT"),
    h("label", { for: "user" }, "User"),
    user,
    h("label", { for: "password" }, "Password"),
    password,
    submit,
    problem,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit.disabled = true;
    replace(problem);
    api
      .login(user.value.trim(), password.value)
      .then(onUser)
      .catch((error) => {
        replace(problem, sentence(error));
        password.value = "";
        password.focus();
      })
      .finally(() => {
        submit.disabled = false;
      });
  });
  replace(page, h("main", { class: "center" }, form));
  user.focus();
}
