output "member" {
  description = "Its account, as IAM names it."
  value       = google_service_account.this.member
}

output "uri" {
  description = "Where it is called, by those who may."
  value       = google_cloudfunctions2_function.this.service_config[0].uri
  depends_on  = [google_cloud_run_v2_service_iam_member.calls]
}
