// The keys of the study page.
import type { KeyAction } from "./keys";
import type { Window } from "./stage";
import type { StudyPage } from "./study_page";

const PAGE_SLICES = 10;
const presets: { key: string; name: string; window: Window }[] = [
  { key: "1", name: "Lung", window: { center: -600, width: 1500 } },
  { key: "2", name: "Mediastinum", window: { center: 50, width: 350 } },
  { key: "3", name: "Bone", window: { center: 400, width: 2000 } },
  { key: "4", name: "Soft tissue", window: { center: 40, width: 400 } },
];

export function studyKeys(page: StudyPage): KeyAction[] {
  const step = (slices: number) => (): void => page.view?.stage.step(slices);
  const scroll = (keys: string[], label: string, help: string, slices: number): KeyAction => ({
    keys,
    label,
    group: "Scroll",
    help,
    run: step(slices),
  });
  return [
    scroll(["ArrowUp", "ArrowLeft"], "↑ ←", "one slice up, towards the head", -1),
    scroll(["ArrowDown", "ArrowRight"], "↓ →", "one slice down, towards the feet", 1),
    scroll(["PageUp"], "Page Up", "ten slices up", -PAGE_SLICES),
    scroll(["PageDown"], "Page Down", "ten slices down", PAGE_SLICES),
    scroll(["Home"], "Home", "first slice", -Infinity),
    scroll(["End"], "End", "last slice", Infinity),
    {
      keys: ["p"],
      label: "P",
      group: "Findings",
      help: "previous finding",
      button: "Previous",
      run: () => page.move(-1),
    },
    {
      keys: ["n"],
      label: "N",
      group: "Findings",
      help: "next finding",
      button: "Next",
      run: () => page.move(1),
    },
    { keys: ["a"], label: "A", group: "Findings", help: "accept", run: () => page.judgeSelected("accepted") },
    { keys: ["r"], label: "R", group: "Findings", help: "reject", run: () => page.judgeSelected("rejected") },
    {
      keys: ["u", "Ctrl+z"],
      label: "U, Ctrl+Z",
      group: "Findings",
      help: "undo the last decision",
      run: () => page.undo(),
    },
    {
      keys: ["m"],
      label: "M",
      group: "Findings",
      help: "add a missed nodule",
      run: () => page.toggleAdding(),
    },
    {
      keys: ["h"],
      label: "H",
      group: "Overlay",
      help: "heatmap on, off",
      run: () => page.controls?.toggleHeat(),
    },
    {
      keys: ["c"],
      label: "C",
      group: "Overlay",
      help: "outline on, off",
      run: () => page.controls?.toggleContours(),
    },
    {
      keys: [" "],
      label: "Space",
      group: "Overlay",
      help: "bare image, and back",
      button: "Bare image",
      run: () => page.controls?.toggleAll(),
    },
    {
      keys: ["o"],
      label: "O",
      group: "Overlay",
      help: "attention or gradient map",
      run: () => page.controls?.toggleKind(),
    },
    {
      keys: ["-"],
      label: "−",
      group: "Overlay",
      help: "weaker",
      run: () => page.controls?.moreOpacity(-0.1),
    },
    {
      keys: ["+", "="],
      label: "+",
      group: "Overlay",
      help: "stronger",
      run: () => page.controls?.moreOpacity(0.1),
    },
    ...presets.map((preset): KeyAction => ({
      keys: [preset.key],
      label: preset.key,
      group: "Image",
      help: `${preset.name.toLowerCase()} window`,
      button: preset.name,
      run: () => page.view?.setWindow(preset.window),
    })),
    {
      keys: ["f", "0"],
      label: "F, 0",
      group: "Image",
      help: "fit to the screen",
      button: "Fit",
      run: () => page.view?.stage.fit(),
    },
    { keys: ["s"], label: "S", group: "Other", help: "sign", run: () => page.sign() },
    {
      keys: ["Escape"],
      label: "Esc",
      group: "Other",
      help: "cancel adding",
      run: () => page.view?.setAdding(false),
    },
    {
      keys: ["w"],
      label: "W",
      group: "Other",
      help: "back to the worklist",
      run: () => (location.hash = "#/"),
    },
    { keys: ["?"], label: "?", group: "Other", help: "this help", run: () => page.showHelp() },
  ];
}
