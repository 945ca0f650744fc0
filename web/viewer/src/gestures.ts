// Mouse on the image, as in any PACS viewer: wheel scrolls, left drag sets the window, middle pans, right zooms.
import type { Stage } from "./stage";

const NOTCH = 50; // a wheel's notch is at least this many pixels; a touchpad sends less at a time
const TOUCHPAD_PIXELS_A_SLICE = 30;
const LINE_PIXELS = 33;

export interface GestureHandlers {
  /** In this mode the left button belongs to the handlers below. */
  isAdding: () => boolean;
  addStart: (x: number, y: number) => void;
  addMove: (x: number, y: number) => void;
  addEnd: () => void;
  hover: (x: number, y: number) => void;
  leave: () => void;
  windowed: () => void;
}

type Drag = { kind: "window" | "pan" | "zoom" | "add"; x: number; y: number };

export function attachGestures(element: HTMLElement, stage: Stage, handlers: GestureHandlers): void {
  let drag: Drag | undefined;
  let wheel = 0;

  const place = (event: MouseEvent): [number, number] => {
    const box = stage.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  const kindOf = (event: PointerEvent): Drag["kind"] => {
    if (event.button === 1 || (event.button === 0 && event.shiftKey)) return "pan";
    if (event.button === 2 || (event.button === 0 && event.ctrlKey)) return "zoom";
    return handlers.isAdding() ? "add" : "window";
  };

  element.addEventListener("pointerdown", (event) => {
    if (drag) return;
    drag = { kind: kindOf(event), x: event.clientX, y: event.clientY };
    element.setPointerCapture(event.pointerId);
    element.focus({ preventScroll: true });
    if (drag.kind === "add") handlers.addStart(...place(event));
    event.preventDefault();
  });

  element.addEventListener("pointermove", (event) => {
    handlers.hover(...place(event));
    if (!drag) return;
    const dx = event.clientX - drag.x;
    const dy = event.clientY - drag.y;
    drag.x = event.clientX;
    drag.y = event.clientY;
    if (drag.kind === "window") dragWindow(stage, dx, dy, handlers);
    else if (drag.kind === "pan") stage.panBy(dx, dy);
    else if (drag.kind === "zoom") stage.zoomBy(Math.exp(-dy / 200));
    else handlers.addMove(...place(event));
  });

  const end = (): void => {
    if (drag?.kind === "add") handlers.addEnd();
    drag = undefined;
  };
  element.addEventListener("pointerup", end);
  element.addEventListener("pointercancel", end);
  element.addEventListener("pointerleave", () => handlers.leave());
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  element.addEventListener("auxclick", (event) => event.preventDefault());
  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels =
        event.deltaMode === WheelEvent.DOM_DELTA_LINE ? event.deltaY * LINE_PIXELS : event.deltaY;
      if (event.ctrlKey) {
        stage.zoomBy(Math.exp(-pixels / 500));
        return;
      }
      wheel = Math.abs(pixels) >= NOTCH ? Math.sign(pixels) * TOUCHPAD_PIXELS_A_SLICE : wheel + pixels;
      const slices = Math.trunc(wheel / TOUCHPAD_PIXELS_A_SLICE);
      wheel -= slices * TOUCHPAD_PIXELS_A_SLICE;
      if (slices) stage.step(slices);
    },
    { passive: false },
  );
}

/** Right widens, down raises the centre; faster in wide windows. */
function dragWindow(stage: Stage, dx: number, dy: number, handlers: GestureHandlers): void {
  const speed = Math.max(0.5, stage.window.width / 400);
  stage.setWindow({ center: stage.window.center + dy * speed, width: stage.window.width + dx * speed });
  handlers.windowed();
}
