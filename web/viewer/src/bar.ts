// The bar at the top of every page after the login.
import { api, type User } from "./api";
import { h, sentence, toast } from "./dom";

export function topBar(user: User, onLogout: () => void, ...middle: (Node | null)[]): HTMLElement {
  const logout = (): void => {
    api.logout().then(onLogout, (error) => toast(sentence(error), "error"));
  };
  return h(
    "header",
    { class: "top" },
    h(
      "a",
      { href: "#/", class: "brand", "data-testid": "home", title: "Worklist" },
      h("img", { src: "/icon.svg", alt: "", width: 24, height: 24 }),
      "Pulmo",
    ),
    h("div", { class: "middle" }, ...middle),
    h("span", { class: "user", "data-testid": "user" }, `${user.display_name || user.name} (${user.role})`),
    h("button", { class: "quiet", "data-testid": "logout", onclick: logout }, "Log out"),
  );
}
