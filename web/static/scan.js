// Finds a patient by the barcode or QR code on their card, where the tablet's browser can read codes; where it cannot, says what to
// do: a hand scanner types into the search field.

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

function tell() {
  for (const part of dialog.querySelectorAll(".hold, video")) part.hidden = true;
  dialog.querySelector(".without").hidden = false;
  dialog.showModal();
}

button.hidden = false;
button.addEventListener("click", "BarcodeDetector" in window && navigator.mediaDevices ? scan : tell);
dialog.addEventListener("close", () => document.getElementById("q").select()); // where a scanner types
