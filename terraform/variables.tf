variable "environment" {
  description = "Variables of the functions of a folder, by the folder's name: addresses of systems and the like, nothing secret. {milvus_to_ploomes = {MILVUS_URL = \"https://...\"}}"
  type        = map(map(string))
  default     = {}
  validation {
    condition     = alltrue([for folder in keys(var.environment) : contains(keys(local.entry_points), folder)])
    error_message = "Name folders below functions/ that have a main.py."
  }
  validation {
    condition = alltrue([
      for name in flatten([for each in values(var.environment) : keys(each)]) :
      !contains(local.every_secret, name) && length(regexall("TOKEN|SECRET|KEY|PASSWORD|WEBHOOK", name)) == 0
    ])
    error_message = "What is secret has its place in Secret Manager: name it in secrets, or leave that to the systems."
  }
}

variable "firestore_location" {
  description = "Where Firestore keeps the books; the region unless given. It can never be changed."
  type        = string
  default     = null
}

variable "labels" {
  description = "Labels of everything that can have some."
  type        = map(string)
  default     = {}
}

variable "notification_emails" {
  description = "Who is told of alerts."
  type        = set(string)
  default     = []
  validation {
    condition     = alltrue([for each in var.notification_emails : can(regex("^[^@\\s]+@[^@\\s]+$", each))])
    error_message = "Write addresses such as ana@example.com."
  }
}

variable "operators" {
  description = "Who may call the functions that people call (replay, clean-up), as members of IAM."
  type        = set(string)
  default     = []
  validation {
    condition     = alltrue([for each in var.operators : can(regex("^(user|group|serviceAccount):[^@\\s]+@[^@\\s]+$", each))])
    error_message = "Write members such as group:crm@example.com; public ones have no place here."
  }
}

variable "overlay" {
  description = "The YAML file {integration: {keys of integration.yaml}} that says what differs here. Nothing secret stands in it."
  type        = string
  default     = null
  validation {
    condition     = try(fileexists(var.overlay), var.overlay == null)
    error_message = "There is no such file."
  }
}

variable "project" {
  description = "The Google Cloud project."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "Write the project's id: 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "public_api" {
  description = "Lets everybody call the functions that have callers of their own to check (`public` in a deploy.yaml)."
  type        = bool
  default     = false
}

variable "region" {
  description = "Where everything runs."
  type        = string
  default     = "us-central1"
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "Write a region such as us-central1."
  }
}

variable "secret_versions" {
  description = "The version of a secret that functions start with, by the secret's name; the latest unless given."
  type        = map(string)
  default     = {}
}

variable "secrets" {
  description = "Names of secrets that the functions of a folder need besides those of its systems, by the folder's name. {operations = [\"WAYBILL_ALERT_WEBHOOK\"], ...}"
  type        = map(set(string))
  default     = {}
  validation {
    condition     = alltrue([for folder in keys(var.secrets) : contains(keys(local.entry_points), folder)])
    error_message = "Name folders below functions/ that have a main.py."
  }
}
