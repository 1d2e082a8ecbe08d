// Where images come from: a chosen, dropped or pasted file, and the camera.

/** Call `onFile` for each image that is chosen, dropped anywhere, or pasted. */
export function listenForFiles(chooser, view, onFile) {
  chooser.addEventListener("change", () => {
    if (chooser.files.length) onFile(chooser.files[0]);
    chooser.value = "";  // the same file may be chosen again
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (file) onFile(file);
  });
  let depth = 0;  // of dragged-over elements
  const mark = (change) => {
    depth = change ? Math.max(0, depth + change) : 0;
    view.classList.toggle("dropping", depth > 0);
  };
  document.addEventListener("dragenter", (event) => { event.preventDefault(); mark(1); });
  document.addEventListener("dragleave", () => mark(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(0);
    if (event.dataTransfer.files.length) onFile(event.dataTransfer.files[0]);
  });
}

/** The pixels of a file; null where the browser does not read its format. */
export async function decoded(blob) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
}

/** A camera whose frames are taken one at a time. */
export class Camera {
  #stream = null;
  #video = document.createElement("video");

  static get isAllowed() {
    return Boolean(navigator.mediaDevices?.getUserMedia);  // on this machine, or over https
  }

  get isOn() {
    return this.#stream !== null;
  }

  async start() {
    this.#stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
    this.#video.muted = true;
    this.#video.playsInline = true;
    this.#video.srcObject = this.#stream;
    await this.#video.play();
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#video.srcObject = null;
    this.#stream = null;
  }

  /** The present frame as a canvas. */
  frame() {
    const canvas = document.createElement("canvas");
    canvas.width = this.#video.videoWidth;
    canvas.height = this.#video.videoHeight;
    canvas.getContext("2d").drawImage(this.#video, 0, 0);
    return canvas;
  }
}
