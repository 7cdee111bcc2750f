// Finds a patient by the barcode or QR code on their card, where the tablet's browser can read codes. A scanner that types works anyway.

const button = document.getElementById("scan");
const dialog = document.getElementById("camera");

async function scan() {
  const video = dialog.querySelector("video");
  const failed = dialog.querySelector("[role=alert]");
  failed.hidden = true;
  dialog.showModal();
  let stream = null;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    video.srcObject = stream;
    await video.play();
    const detector = new BarcodeDetector();
    while (dialog.open) {
      const [code] = await detector.detect(video);
      if (code?.rawValue) {
        document.getElementById("q").value = code.rawValue;
        document.getElementById("q").form.submit();
        return;
      }
      await new Promise((done) => setTimeout(done, 150));
    }
  } catch {
    failed.hidden = false;
  } finally {
    for (const track of stream?.getTracks() ?? []) track.stop();
  }
}

if ("BarcodeDetector" in window && navigator.mediaDevices) {
  button.hidden = false;
  button.addEventListener("click", scan);
}
